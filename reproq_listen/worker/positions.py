"""Where the last claims stopped in each stream, as the hint of the next claim.

While an old transaction keeps a snapshot, PostgreSQL cannot remove the index entries of tasks that were claimed since.
A claim without a hint (a full look) then steps over all of them: 100,000 cost 8 to 25 ms. A hint starts behind them,
but it sees no other stream, and no task that came back to an earlier place. So full looks go on, as often as they can
while they take a twentieth of the time, and once a second in any case.

A worker with more to claim than it can take hints. An idle one hints only while full looks are slow. A claim with a
hint that is not full is followed by a full look: at once while full looks are fast or the last one left tasks behind,
else when one is due. After a claim with a hint that found nothing they may take a third of the time: what the worker
was woken for is elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reproq_listen.model import ClaimedTask

_PAUSE_AFTER_TASKS = 20.0  # pause after a full look, as a multiple of what it took
_PAUSE_AFTER_NOTHING = 2.0
_MAX_PAUSE = 1.0  # seconds
_MAX_STREAMS = 20
_SLOW = 5e-3  # seconds of a full look, and for each task that it returned:
_SLOW_FOR_TASK = 1e-3


class _Position(Struct, frozen=True):
    queue_name: str
    limit_key: str
    priority: int
    since: str


class StreamPositions:
    """Owns the positions, and the time of the next full look. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._is_slow = False  # the last full look was
        self._left_tasks = False  # so did it, perhaps
        self._positions: dict[tuple[str, str, int], _Position] = {}
        self._looked_at = 0.0
        self._look_took = 0.0

    def hint(self, now: float) -> str | None:
        """JSON for `p_hint`, or None when the next claim must be a full look."""
        if not self._positions or now >= self._looked_at + self._pause(_PAUSE_AFTER_TASKS):
            return None
        return msgspec.json.encode(list(self._positions.values())).decode()

    def full_look_in(self, now: float, *, has_found: bool) -> float:
        """Seconds until the full look that must follow a claim with a hint which was not full; 0 = at once."""
        if not self._is_slow or self._left_tasks:
            return 0.0
        return max(0.0, self._looked_at + self._pause(_PAUSE_AFTER_TASKS if has_found else _PAUSE_AFTER_NOTHING) - now)

    def claimed(self, tasks: Sequence[ClaimedTask], *, is_full: bool, hinted: bool, sent_at: float, now: float) -> None:
        """Note the answer to a claim. `is_full`: there may be more tasks."""
        if not hinted:
            self._looked_at, self._look_took = now, now - sent_at
            self._is_slow = self._look_took > _SLOW + _SLOW_FOR_TASK * len(tasks)
            self._left_tasks = is_full
            if not self._is_slow:
                self._positions.clear()
        for task in tasks:
            position = _Position(task.queue_name, task.limit_key, task.priority, task.ready_since)
            self._positions[task.queue_name, task.limit_key, task.priority] = position
        if (not is_full and not self._is_slow) or len(self._positions) > _MAX_STREAMS:
            self._positions.clear()

    def _pause(self, multiple: float) -> float:
        return min(multiple * self._look_took, _MAX_PAUSE)
