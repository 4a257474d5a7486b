"""Whose tasks travel alone, so that it is known whose it is what comes past the streams of Python (programs, C)."""

from collections.abc import Sequence

from reproq_listen.executors.pool.attempt import PoolAttempt

_QUIET_RUNS = 100
"""A path that was heard is heard again, most likely."""
_MAX_PATHS = 10_000


class UnbatchablePaths:
    """Task paths that were heard lately, with how many quiet runs let them travel with others again."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def __contains__(self, path: str) -> bool:
        return path in self._left

    def __len__(self) -> int:
        return len(self._left)

    def heard(self, attempts: Sequence[PoolAttempt]) -> PoolAttempt:
        """One of these has made a raw_output: give whose it is, most likely. At least one."""
        for attempt in attempts:
            if self._left.get(attempt.path, 0) > 1:
                attempts = [attempt]
        paths = {attempt.path for attempt in attempts}
        if len(self._left) > _MAX_PATHS:
            self._left.clear()
        for path in paths:
            self._left[path] = _QUIET_RUNS if len(paths) == 1 else 1
        return attempts[0]

    def was_quiet(self, attempt: PoolAttempt) -> None:
        """It has run and was not heard."""
        left = self._left.get(attempt.path)
        if left is not None:
            if left > 1:
                self._left[attempt.path] = left - 1
            else:
                del self._left[attempt.path]
