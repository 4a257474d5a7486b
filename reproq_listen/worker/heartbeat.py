"""Renews all leases of this process with one call an interval."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Database
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import wait_for_event
from reproq_listen.worker.leases import Leases

_BEATS_PER_LEASE = 3  # renew at least so often, whatever the interval says


_LONGEST_PAUSE = 2.0  # seconds between two tries of a beat, and at most half the interval


_BUSY_AGAIN = 0.5  # seconds until a row that somebody else held is asked for again


_MIN_BETWEEN_BEATS = 0.05  # seconds: forged cancel messages must not become a flood


_RETURNED_AFTER = 20.0  # seconds, or half a lease: then a heartbeat returns what a lost claim reply took


class Heartbeat:
    """Renews all leases with one call an interval, on a connection of its own. It dies last."""

    def __init__(
        self,
        database: Database,
        worker_id: str,
        incarnation: UUID,
        leases: Leases,
        interval: timedelta,
        log: Log,
    ) -> None:
        self._database = database
        self._worker_id = worker_id
        self._incarnation = incarnation
        self._leases = leases
        self._interval = min(interval.total_seconds(), leases.duration.total_seconds() / _BEATS_PER_LEASE)
        self._log = log
        self._due = 0.0
        self._sooner = asyncio.Event()

    async def run(self) -> None:
        """Beat at once and then every interval until cancelled; repeat a beat that failed until it succeeds."""
        loop = asyncio.get_running_loop()
        self._due = loop.time()
        while True:
            self._sooner.clear()
            if await wait_for_event(self._sooner, max(0.0, self._due - loop.time())):
                continue
            self._due = loop.time() + self._interval
            await retry_until_answered(self._beat, self._log, longest_pause=min(_LONGEST_PAUSE, self._interval / 2))
            await asyncio.sleep(_MIN_BETWEEN_BEATS)

    def beat_within(self, seconds: float = 0.0) -> None:
        """Beat within so many seconds, if not sooner."""
        due = asyncio.get_running_loop().time() + seconds
        if due < self._due:
            self._due = due
            self._sooner.set()

    def cancel_requested(self, result_id: int) -> None:
        """Somebody says that a task is to be cancelled. Only the database's answer counts: ask it now."""
        if self._leases.holds(result_id):
            self.beat_within()

    def claim_reply_lost(self) -> None:
        """A claim's reply was lost: beat as soon as the database may return what it took."""
        self.beat_within(min(self._leases.duration.total_seconds() / 2, _RETURNED_AFTER) + 0.5)

    async def _beat(self) -> None:
        sent = asyncio.get_running_loop().time()
        asked = self._leases.tasks()
        answers = await self._database.heartbeat(self._worker_id, self._incarnation, asked, self._leases.duration)
        self._leases.apply(answers, asked, sent)
        if any(answer.answer == "busy" for answer in answers):
            self.beat_within(_BUSY_AGAIN)
        unknown_leases = [
            answer.result_id
            for answer in answers
            if answer.answer == "unknown" and not self._leases.holds(answer.result_id)
        ]
        if unknown_leases:  # the reply of a claim is on its way, or was lost: then a later beat gives them back
            self._log.debug(Event.LEASES_UNKNOWN, task_ids=unknown_leases)
            self.claim_reply_lost()
