"""Gives back what dead workers held: calls `reproq_reclaim` every so often, and sooner when asked."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Database
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import wait_for_event

_BATCH = 100
_MIN_BETWEEN = 1.0  # seconds between two calls that were asked for


class Reclaimer:
    """Owns the pace of reclaiming. An interval of zero means that this worker never reclaims."""

    def __init__(self, database: Database, interval: timedelta, on_ready: Callable[[], None], log: Log) -> None:
        self._database = database
        self._interval = interval.total_seconds()
        self._on_ready = on_ready
        self._log = log
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Something is due that a claim cannot take: an expired lease, perhaps. Reclaim within a second."""
        self._asked.set()

    async def run(self) -> None:
        """Reclaim at once and then every interval, with jitter, until cancelled."""
        if not self._interval:
            return
        while True:
            await self._reclaim()
            await asyncio.sleep(min(_MIN_BETWEEN, self._interval))
            pause = self._interval * random.uniform(0.9, 1.0) - _MIN_BETWEEN
            await wait_for_event(self._asked, max(0.0, pause))
            self._asked.clear()

    async def _reclaim(self) -> None:
        counts: Counter[str] = Counter()
        while True:
            answers = await retry_until_answered(lambda: self._database.reclaim(_BATCH), self._log)
            counts.update(answer.answer for answer in answers)
            if len(answers) < _BATCH:
                break
        if counts:
            self._log.info(Event.TASKS_RECLAIMED, **counts)
        if counts["ready"]:
            self._on_ready()
