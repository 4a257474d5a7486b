"""Claims that go with completions: a worker with more tasks than slots stores a result and claims in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reproq_listen.db.errors import CallError
from reproq_listen.db.worker_queries import ClaimRequest
from reproq_listen.model import ClaimedTask
from reproq_listen.runtime.wake_flag import WakeFlag
from reproq_listen.worker.claimer import Claimed, Claimer

_MAX_WAIT = 0.02  # seconds a free slot waits for the completion that claims a task for it


class CompletionClaims:
    """Owns the decision who claims for a free slot: the next completion, or the claim loop, which `wake` wakes."""

    def __init__(
        self,
        claimer: Claimer,
        max_slots: int,
        free_slots: Callable[[], int],
        start: Callable[[Claimed], None],
        on_error: Callable[[CallError], None],
        stopping: asyncio.Event,
        wake: WakeFlag,
    ) -> None:
        """`free_slots`: the number of tasks to claim now, for which no completion on its way asks."""
        self._claimer = claimer
        self._max_slots = max_slots
        self._free_slots = free_slots
        self._start = start
        self._on_error = on_error
        self._stopping = stopping
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        self.is_saturated = False
        """There may be more claimable tasks than this worker has taken. Set by the claim loop."""

    @property
    def is_wanted(self) -> bool:
        """Whether the next completion claims, if it can.

        A pool that takes many short tasks in advance claims while it stores, and gains nothing by one call.
        """
        return self.is_saturated and not self._stopping.is_set() and 0 < self._free_slots() <= self._max_slots

    def slot_freed(self) -> None:
        """A completion waits to be sent. If it has to wait for long, the claim loop claims."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_MAX_WAIT, self._slot_waited)

    def request(self) -> ClaimRequest | None:
        """The claim for the completion that is about to be sent; `answered` must follow."""
        if not self.is_wanted:
            return None
        request = self._claimer.request(self._free_slots())
        if request is None:
            self._wake.notify()
        return request

    def answered(self, tasks: list[ClaimedTask] | CallError) -> None:
        """Start what the completion has claimed. After an error, and for slots that are free still, wake the loop."""
        if isinstance(tasks, CallError):
            self._claimer.answered(None)
            self._on_error(tasks)
            self._wake.notify()
            return
        claimed = self._claimer.answered(tasks)
        self._start(claimed)
        if not claimed.is_full or self._free_slots() > 0:
            self._wake.notify()

    def _slot_waited(self) -> None:
        self._timer = None
        if self.is_saturated and self._free_slots() > 0:
            self._wake.notify()
