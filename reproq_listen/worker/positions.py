"""Where the last claims stopped in each stream, as the hint of the next claim.

While an old transaction keeps a snapshot, PostgreSQL cannot remove the index entries of tasks that were claimed since.
A claim without a hint then steps over all of them: 100,000 cost 25 ms. A hint starts behind them, but it sees no other
stream, and no task that came back to an earlier place. So claims without a hint go on, as often as they can while they
take a twentieth of the time, and once a second in any case.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reproq_listen.model import ClaimedTask

_FULL_LOOK_SHARE = 20.0  # pause between two claims without a hint, as a multiple of what the last one took
_MAX_PAUSE = 1.0  # seconds
_MAX_STREAMS = 20


class _Position(Struct, frozen=True):
    queue_name: str
    limit_key: str
    priority: int
    since: str


class StreamPositions:
    """Owns the positions since the last claim without a hint. Only a worker with more to claim uses them."""

    def __init__(self) -> None:
        self._positions: dict[tuple[str, str, int], _Position] = {}
        self._full_look_due = 0.0

    def hint(self, now: float) -> str | None:
        """JSON for `p_hint`, or None when the next claim must look at everything. `now`: monotonic seconds."""
        if not self._positions or now >= self._full_look_due:
            return None
        return msgspec.json.encode(list(self._positions.values())).decode()

    def claimed(self, tasks: Sequence[ClaimedTask], *, is_full: bool, hinted: bool, sent_at: float, now: float) -> None:
        """Note the answer to a claim. `is_full`: there may be more tasks. Times are monotonic seconds."""
        if not hinted:
            self._positions.clear()
            self._full_look_due = now + min(_FULL_LOOK_SHARE * (now - sent_at), _MAX_PAUSE)
        for task in tasks:
            position = _Position(task.queue_name, task.limit_key, task.priority, task.ready_since)
            self._positions[task.queue_name, task.limit_key, task.priority] = position
        if not is_full or len(self._positions) > _MAX_STREAMS:
            self._positions.clear()
