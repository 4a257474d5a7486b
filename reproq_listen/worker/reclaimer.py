"""Returns the tasks of dead workers: calls `reproq_reclaim` at an interval, and earlier on request."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import wait_for_event

_BATCH = 100
_MIN_PAUSE = 1.0  # seconds between two calls


class Reclaimer:
    """Owns the time of the next reclaim. An interval of zero means that this worker never reclaims."""

    def __init__(self, queries: WorkerQueries, interval: timedelta, on_ready: Callable[[], None], log: Log) -> None:
        """`on_ready` is called when tasks became claimable."""
        self._queries = queries
        self._interval = interval.total_seconds()
        self._on_ready = on_ready
        self._log = log
        self._requested = asyncio.Event()

    def request(self) -> None:
        """Reclaim within a second: something is due that no claim can take, such as an expired lease."""
        self._requested.set()

    async def run(self) -> None:
        """Reclaim at once and then every interval, with jitter, until cancelled."""
        if not self._interval:
            return
        while True:
            await self._reclaim()
            await asyncio.sleep(min(_MIN_PAUSE, self._interval))
            pause = self._interval * random.uniform(0.9, 1.0) - _MIN_PAUSE
            await wait_for_event(self._requested, max(0.0, pause))
            self._requested.clear()

    async def _reclaim(self) -> None:
        counts: Counter[str] = Counter()
        while True:
            answers = await retry_until_answered(lambda: self._queries.reclaim(_BATCH), self._log)
            counts.update(answer.answer for answer in answers)
            if len(answers) < _BATCH:
                break
        if counts:
            self._log.info(Event.TASKS_RECLAIMED, **counts)
        if counts["ready"]:
            self._on_ready()
