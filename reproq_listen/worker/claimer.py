"""Claims tasks: one claim at a time, and the next one may be on its way while the tasks of the last one start.

A claim may also travel with a completion (`request` and `answered`): one call and one commit instead of two.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.errors import CallError
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import ClaimRequest, NextWake, WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask
from reproq_listen.worker.positions import StreamPositions
from reproq_listen.worker.registration import Registration

_PAUSE_AFTER_NOTHING = 1.0  # seconds: a completion claims nothing while a token bucket has a rate


class Claimed(NamedTuple):
    """The answer to a claim."""

    tasks: list[ClaimedTask]
    limit: int
    """The number of tasks that were asked for."""
    sent_at: float
    """Monotonic time before the claim was sent: no lease of these tasks ends before this plus its duration."""
    next_wake: NextWake | None = None
    """The answer of `next_wake`, if the claim came with it."""
    full_look_in: float = 0.0
    """Seconds until a claim should look at everything; 0: this one did, or was full."""

    @property
    def is_full(self) -> bool:
        """Whether more tasks may be claimable."""
        return len(self.tasks) == self.limit


class Claimer:
    """Owns the order of the queues, and the claims that are on their way."""

    def __init__(
        self,
        queries: WorkerQueries,
        settings: WorkerSettings,
        registration: Registration,
        give_up: asyncio.Event,
        on_error: Callable[[CallError], None],
        log: Log,
    ) -> None:
        """`give_up`: once it is set a failed claim is not repeated, and returns no tasks."""
        self._queries = queries
        self._settings = settings
        self._registration = registration
        self._give_up = give_up
        self._on_error = on_error
        self._log = log
        self._queues = list(settings.queues)
        self._hinted_queues = list(settings.queues)
        self._positions = StreamPositions()
        self._prefetched: asyncio.Task[Claimed] | None = None
        self._is_taking = False
        self._request: ClaimRequest | None = None  # sent with a completion
        self._requested_at = 0.0
        self._no_request_before = 0.0

    @property
    def has_prefetched(self) -> bool:
        """Whether a claim was prefetched and not taken yet."""
        return self._prefetched is not None

    @property
    def requested(self) -> int:
        """The number of tasks that a completion on its way asks for."""
        return 0 if self._request is None else self._request.limit

    def prefetch(self, limit: int, group: asyncio.TaskGroup) -> None:
        """Send the next claim now; `take` returns its tasks."""
        assert self._prefetched is None
        self._prefetched = group.create_task(self._claim(limit, is_last=False))

    async def take(self, limit: int) -> Claimed:
        """The prefetched claim, or else a new one of up to `limit` tasks."""
        prefetched, self._prefetched = self._prefetched, None
        self._is_taking = True
        try:
            return await (prefetched if prefetched is not None else self._claim(limit, is_last=True))
        finally:
            self._is_taking = False

    def request(self, limit: int) -> ClaimRequest | None:
        """A claim to send with a completion, now; `answered` must follow. None if another claim is on its way, or would
        find more."""
        now = asyncio.get_running_loop().time()
        if self._is_taking or self.has_prefetched or self._request is not None or now < self._no_request_before:
            return None
        self._requested_at = now
        self._request = self._make_request(limit, self._positions.hint(now))
        return self._request

    def answered(self, tasks: list[ClaimedTask] | None) -> Claimed:
        """Note what a completion has claimed. None: the call failed, and the reply may be lost."""
        assert self._request is not None
        request, self._request = self._request, None
        if tasks is None:
            return Claimed([], request.limit, self._requested_at)
        now = asyncio.get_running_loop().time()
        if not tasks:
            self._no_request_before = now + _PAUSE_AFTER_NOTHING
        self._note(request, tasks, self._requested_at)
        self._log_claimed(tasks, now - self._requested_at)
        return Claimed(tasks, request.limit, self._requested_at)

    async def _claim(self, limit: int, *, is_last: bool) -> Claimed:
        """`is_last`: if it is not full, no other claim is under way, and the caller sleeps."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        hint = self._positions.hint(started_at)
        claimed = await self._take(limit, hint, with_next_wake=is_last and hint is None)
        tasks, sent_at, next_wake, full_look_in = claimed.tasks, claimed.sent_at, claimed.next_wake, 0.0
        if hint is not None and not claimed.is_full:  # the hint says nothing of other streams
            full_look_in = self._positions.full_look_in(loop.time(), has_found=bool(tasks))
            if not full_look_in:
                more = await self._take(limit - len(tasks), None, with_next_wake=is_last)
                tasks, sent_at, next_wake = tasks + more.tasks, started_at, more.next_wake
        self._log_claimed(tasks, loop.time() - started_at)
        return Claimed(tasks, limit, sent_at, next_wake, full_look_in)

    async def _take(self, limit: int, hint: str | None, *, with_next_wake: bool) -> Claimed:
        """One claim, repeated until it is answered. No tasks if stopped while the database was away."""
        loop = asyncio.get_running_loop()

        async def claim() -> Claimed:
            sent_at = loop.time()
            request = self._make_request(limit, hint)
            if with_next_wake:
                tasks, next_wake = await self._queries.claim_and_next_wake(request)
            else:
                tasks, next_wake = await self._queries.claim(request), None
            self._note(request, tasks, sent_at)
            return Claimed(tasks, limit, sent_at, next_wake)

        try:
            return await retry_until_answered(claim, self._log, give_up=self._give_up, on_error=self._on_error)
        except CallError:
            return Claimed([], limit, loop.time())

    def _make_request(self, limit: int, hint: str | None) -> ClaimRequest:
        # Claims with a hint have turns of their own: a full look after each would find the same queue first for ever.
        queues = self._queues if hint is None else self._hinted_queues
        queues.append(queues.pop(0))  # queues take turns
        settings, incarnation = self._settings, self._registration.incarnation
        return ClaimRequest(
            settings.worker_id, list(queues), limit, settings.lease, settings.aging_factor, hint, incarnation
        )

    def _note(self, request: ClaimRequest, tasks: list[ClaimedTask], sent_at: float) -> None:
        is_full, hinted = len(tasks) == request.limit, request.hint is not None
        now = asyncio.get_running_loop().time()
        self._positions.claimed(tasks, is_full=is_full, hinted=hinted, sent_at=sent_at, now=now)

    def _log_claimed(self, tasks: list[ClaimedTask], seconds: float) -> None:
        counts = Counter(task.queue_name for task in tasks)
        self._log.debug(Event.TASKS_CLAIMED, seconds=seconds, counts=counts)
