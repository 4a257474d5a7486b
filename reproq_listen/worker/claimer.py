"""Asking the database for tasks: one claim at a time, and while its tasks are dealt out already the next one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.errors import CallError
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Database
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask


class Claimed(NamedTuple):
    """What a claim gave."""

    tasks: list[ClaimedTask]
    limit: int
    """How many were asked for."""
    sent: float
    """Monotonic time before the claim was sent: no lease of these ends before this plus its duration."""

    @property
    def is_full(self) -> bool:
        """Whether there may be more."""
        return len(self.tasks) == self.limit


class Claimer:
    """Owns the turns of the queues, and the claim that is under way."""

    def __init__(
        self,
        database: Database,
        settings: WorkerSettings,
        incarnation: UUID,
        give_up: asyncio.Event,
        on_error: Callable[[CallError], None],
        log: Log,
    ) -> None:
        """`give_up`: from now on a claim that fails is not repeated, and gives nothing."""
        self._database = database
        self._settings = settings
        self._incarnation = incarnation
        self._give_up = give_up
        self._on_error = on_error
        self._log = log
        self._queues = list(settings.queues)
        self._ahead: asyncio.Task[Claimed] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether a claim was asked for ahead, whose tasks nobody has taken yet."""
        return self._ahead is not None

    def prefetch(self, limit: int, group: asyncio.TaskGroup) -> None:
        """Send the next claim now; `take` gives its tasks."""
        assert self._ahead is None
        self._ahead = group.create_task(self._claim(limit))

    async def take(self, limit: int) -> Claimed:
        """Give the tasks of the claim that is under way, or else of a new one of up to `limit`."""
        ahead, self._ahead = self._ahead, None
        return await (ahead if ahead is not None else self._claim(limit))

    async def _claim(self, limit: int) -> Claimed:
        loop = asyncio.get_running_loop()
        sent = 0.0

        async def claim() -> list[ClaimedTask]:
            nonlocal sent
            sent = loop.time()
            self._queues.append(self._queues.pop(0))  # queues take turns
            settings = self._settings
            return await self._database.claim(
                settings.worker_id, self._incarnation, self._queues, limit, settings.lease, settings.aging_factor
            )

        try:
            tasks = await retry_until_answered(claim, self._log, give_up=self._give_up, on_error=self._on_error)
        except CallError:
            return Claimed([], limit, sent)  # told to stop while the database was away
        counts = Counter(task.queue_name for task in tasks)
        self._log.debug(Event.TASKS_CLAIMED, seconds=loop.time() - sent, counts=counts)
        return Claimed(tasks, limit, sent)
