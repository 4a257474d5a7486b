"""Pauses after processes for tasks could not be started: a sick host must not take the tasks that others can run."""

import asyncio
import random
from collections.abc import Callable

_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 10.0
_MAX_FAILED_STARTS = 5
_MAX_SUSPECTS = 1000

OnPause = Callable[[str, float], None]
"""Called with the reason, and the seconds until the next try, when no process can be started."""


class StartBackoff:
    """Owns the pause, its growth, and the tasks that may be to blame themselves.

    One failure may be chance. From the second in a row on there is a pause after each, twice as long as the one before.
    Failures during a pause count as one with the failure that began it.
    """

    def __init__(self, on_pause: OnPause, on_over: Callable[[], None]) -> None:
        """`on_over` is called when a pause is over."""
        self._on_pause = on_pause
        self._on_over = on_over
        self._failures = 0
        self._successes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._suspects: dict[int, tuple[int, int]] = {}
        """By task: its failed starts, and the number of successes at the last one."""

    @property
    def is_pausing(self) -> bool:
        return self._timer is not None

    def failed(self, why: str) -> bool:
        """A process could not be started, or died before it had begun with its task. Whether there is a pause now."""
        if self._timer is None and not self._is_closed:
            self._failures += 1
            if self._failures > 1:
                seconds = min(_FIRST_PAUSE_SECONDS * 2.0 ** (self._failures - 2), _MAX_PAUSE_SECONDS)
                seconds *= random.uniform(0.75, 1.0)  # many workers of a host must not return together
                self._timer = asyncio.get_running_loop().call_later(seconds, self._end_pause)
                self._on_pause(why, seconds)
        return self._timer is not None

    def succeeded(self) -> None:
        """A process has begun with its task: that ends the pause, and the next one is short again."""
        self._successes += 1
        self._failures = 0
        if self._timer is not None:
            self._timer.cancel()
            self._end_pause()

    def blames(self, result_id: int) -> bool:
        """Call when a task has failed to start. True if it keeps failing although other tasks have been started."""
        count, successes = self._suspects.pop(result_id, (0, -1))
        if self._successes > successes:
            count += 1
        if count >= _MAX_FAILED_STARTS:
            return True
        self._suspects[result_id] = count, self._successes
        if len(self._suspects) > _MAX_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]
        return False

    def _end_pause(self) -> None:
        self._timer = None
        if not self._is_closed:
            self._on_over()

    def close(self) -> None:
        """Pause no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
