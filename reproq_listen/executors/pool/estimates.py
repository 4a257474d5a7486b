"""How long tasks take, and what follows: how many share a batch, and how many are claimed ahead.

The costs per message and per statement are shared by short tasks, and do not matter for a long task. So short tasks
are sent in batches and long ones alone. A task of an unknown path counts as long.
"""

_BATCH_SECONDS = 0.010
"""Expected duration of a batch, at most."""
_AHEAD_SECONDS = 0.050
"""Expected duration of all claimed tasks, at most."""
_MAX_CLAIMED = 500
"""Claimed tasks, at most, however short."""
MAX_PER_CLAIM = 200
"""Tasks of one claim, at most."""
_MAX_PATHS = 10_000
_MIN_SECONDS = 10e-6
_UNKNOWN_SECONDS = 3600.0
_WEIGHT_LONGER = 0.5
_WEIGHT_SHORTER = 0.1
_WEIGHT_OVERALL = 0.05
_LONG_SECONDS = 0.020


class DurationEstimates:
    """Estimates by task path. An estimate rises fast and falls slowly: only one that is too short makes tasks wait."""

    def __init__(self) -> None:
        self._by_path: dict[str, float] = {}
        self._overall: float | None = None

    def seconds(self, path: str) -> float:
        """Give the expected duration of a task; an hour if no task of this path has ended."""
        return self._by_path.get(path, _UNKNOWN_SECONDS)

    def task_took(self, path: str, seconds: float) -> None:
        """A task has ended."""
        seconds = max(seconds, _MIN_SECONDS)
        known = self._by_path.get(path, seconds)
        weight = _WEIGHT_LONGER if seconds > known else _WEIGHT_SHORTER
        self._store(path, known + weight * (seconds - known))
        # For all tasks together the mean counts. A task of an hour only shows that there are long ones too.
        capped = min(seconds, _LONG_SECONDS)
        overall = capped if self._overall is None else self._overall
        self._overall = overall + _WEIGHT_OVERALL * (capped - overall)

    def task_is_running(self, path: str, seconds: float) -> None:
        """A task has been running for this time."""
        self._store(path, max(self._by_path.get(path, 0.0), seconds))

    def _store(self, path: str, seconds: float) -> None:
        if path not in self._by_path and len(self._by_path) >= _MAX_PATHS:
            self._by_path.clear()
        self._by_path[path] = seconds

    def fits(self, seconds: float) -> bool:
        """Whether a child may be assigned this much work at once."""
        return seconds <= _BATCH_SECONDS

    def batch_seconds(self, waiting_seconds: float, idle: int) -> float:
        """Give the work for the next child: its share of what waits, if `idle` children have no task.

        Less than a millisecond of work is not worth another message.
        """
        share = waiting_seconds / idle if idle else waiting_seconds
        return min(max(share, _BATCH_SECONDS / 10), _BATCH_SECONDS)

    def room(self, concurrency: int, claimed: int, stuck: int) -> int:
        """Give the number of tasks to claim now.

        `claimed`: tasks that have not ended; `stuck`: children busy with a long task. While tasks are long or unknown,
        claim what can start at once. While they are short, claim many or none: the next claim gets more.
        """
        free = concurrency - claimed
        if self._overall is None or self._overall >= _BATCH_SECONDS:
            return max(0, free)
        moving = concurrency - stuck
        if not moving:
            return 0
        target = min(int(moving * _AHEAD_SECONDS / self._overall), _MAX_CLAIMED) + stuck
        target = max(target, concurrency)
        room = min(target - claimed, MAX_PER_CLAIM)
        if free > 0 or room >= min(MAX_PER_CLAIM, target // 2):
            return max(0, room)
        return 0
