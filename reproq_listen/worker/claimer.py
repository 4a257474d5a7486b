"""Claims tasks: one claim at a time, and the next one may be on its way while the tasks of the last one start."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.errors import CallError
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask
from reproq_listen.worker.positions import StreamPositions
from reproq_listen.worker.registration import Registration


class Claimed(NamedTuple):
    """The answer to a claim."""

    tasks: list[ClaimedTask]
    limit: int
    """The number of tasks that were asked for."""
    sent_at: float
    """Monotonic time before the claim was sent: no lease of these tasks ends before this plus its duration."""
    full_look_in: float = 0.0
    """Seconds until a claim should look at everything; 0: this one did, or was full."""

    @property
    def is_full(self) -> bool:
        """Whether more tasks may be claimable."""
        return len(self.tasks) == self.limit


class Claimer:
    """Owns the order of the queues, and the prefetched claim."""

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
        self._positions = StreamPositions()
        self._sent_at = 0.0
        self._prefetched: asyncio.Task[Claimed] | None = None

    @property
    def has_prefetched(self) -> bool:
        """Whether a claim was prefetched and not taken yet."""
        return self._prefetched is not None

    def prefetch(self, limit: int, group: asyncio.TaskGroup) -> None:
        """Send the next claim now; `take` returns its tasks."""
        assert self._prefetched is None
        self._prefetched = group.create_task(self._claim(limit))

    async def take(self, limit: int) -> Claimed:
        """The prefetched claim, or else a new one of up to `limit` tasks."""
        prefetched, self._prefetched = self._prefetched, None
        return await (prefetched if prefetched is not None else self._claim(limit))

    async def _claim(self, limit: int) -> Claimed:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        hint = self._positions.hint(started_at)
        tasks = await self._take(limit, hint)
        full_look_in = 0.0
        if hint is not None and len(tasks) < limit:  # the hint says nothing of other streams
            full_look_in = self._positions.full_look_in(loop.time(), has_found=bool(tasks))
            if not full_look_in:
                tasks += await self._take(limit - len(tasks), None)
        counts = Counter(task.queue_name for task in tasks)
        self._log.debug(Event.TASKS_CLAIMED, seconds=loop.time() - started_at, counts=counts)
        return Claimed(tasks, limit, self._sent_at if hint is None else started_at, full_look_in)

    async def _take(self, limit: int, hint: str | None) -> list[ClaimedTask]:
        """One claim, repeated until it is answered. No tasks if stopped while the database was away."""
        loop = asyncio.get_running_loop()

        async def claim() -> list[ClaimedTask]:
            self._sent_at = loop.time()
            self._queues.append(self._queues.pop(0))  # queues take turns
            settings, incarnation = self._settings, self._registration.incarnation
            return await self._queries.claim(
                settings.worker_id, incarnation, self._queues, limit, settings.lease, settings.aging_factor, hint
            )

        try:
            tasks = await retry_until_answered(claim, self._log, give_up=self._give_up, on_error=self._on_error)
        except CallError:
            return []
        is_full = len(tasks) == limit
        self._positions.claimed(tasks, is_full=is_full, hinted=hint is not None, sent_at=self._sent_at, now=loop.time())
        return tasks
