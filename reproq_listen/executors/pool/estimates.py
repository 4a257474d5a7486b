"""How long tasks take, and what follows: how many travel together, and how many are claimed ahead.

What is paid per message and per statement is shared by short tasks, and costs a long task nothing that matters.
So short tasks travel in crowds and long ones alone; a task not seen before counts as long.
"""

_BATCH_SECONDS = 0.010
"""A batch takes no longer than this, by what is known."""
_AHEAD_SECONDS = 0.050
"""What is in hand takes the children no longer than this."""
_MAX_AHEAD = 500
"""Tasks in hand at most, however short."""
MAX_PER_CLAIM = 200
"""Tasks of one claim at most."""
_MAX_PATHS = 10_000
_MIN_SECONDS = 10e-6
_UNKNOWN_SECONDS = 3600.0
_WEIGHT_LONGER = 0.5
_WEIGHT_SHORTER = 0.1
_WEIGHT_OVERALL = 0.05
_LONG_SECONDS = 0.020


class DurationEstimates:
    """Estimates by task path. An estimate rises fast and falls slowly: being wrong costs a wait only one way."""

    def __init__(self) -> None:
        self._by_path: dict[str, float] = {}
        self._overall: float | None = None

    def seconds(self, path: str) -> float:
        """How long a task of this path takes; an hour if none has been seen."""
        return self._by_path.get(path, _UNKNOWN_SECONDS)

    def took(self, path: str, seconds: float) -> None:
        """A task has ended."""
        seconds = max(seconds, _MIN_SECONDS)
        known = self._by_path.get(path, seconds)
        weight = _WEIGHT_LONGER if seconds > known else _WEIGHT_SHORTER
        self._keep(path, known + weight * (seconds - known))
        # Of all tasks it is the mean that counts. One of an hour says no more than that there are long ones, too.
        capped = min(seconds, _LONG_SECONDS)
        overall = capped if self._overall is None else self._overall
        self._overall = overall + _WEIGHT_OVERALL * (capped - overall)

    def runs(self, path: str, seconds: float) -> None:
        """A task runs already for so long."""
        self._keep(path, max(self._by_path.get(path, 0.0), seconds))

    def _keep(self, path: str, seconds: float) -> None:
        if path not in self._by_path and len(self._by_path) >= _MAX_PATHS:
            self._by_path.clear()
        self._by_path[path] = seconds

    def fits(self, seconds: float) -> bool:
        """Whether so much work may stand before a child at once."""
        return seconds <= _BATCH_SECONDS

    def batch_seconds(self, waiting_seconds: float, idle: int) -> float:
        """How much work the next child gets at once, if so much waits and so many children have nothing to do.

        Work worth sharing is shared; what takes less than a millisecond is not worth a second message.
        """
        share = waiting_seconds / idle if idle else waiting_seconds
        return min(max(share, _BATCH_SECONDS / 10), _BATCH_SECONDS)

    def room(self, concurrency: int, held: int, stuck: int) -> int:
        """How many tasks to claim now.

        `held`: tasks in hand; `stuck`: children busy with a task that is no short one. While tasks are long or
        unknown that is as many as can start at once. While they are short it is a good part of a crowd, or none:
        the next claim is worth more.
        """
        free = concurrency - held
        if self._overall is None or self._overall >= _BATCH_SECONDS:
            return max(0, free)
        moving = concurrency - stuck
        if not moving:
            return 0
        target = min(int(moving * _AHEAD_SECONDS / self._overall), _MAX_AHEAD) + stuck
        target = max(target, concurrency)
        room = min(target - held, MAX_PER_CLAIM)
        if free > 0 or room >= min(MAX_PER_CLAIM, target // 2):
            return max(0, room)
        return 0
