"""Renews all leases of this process with one call an interval."""

from __future__ import annotations

import asyncio

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import wait_for_event
from reproq_listen.worker.leases import Leases
from reproq_listen.worker.registration import Registration

_MIN_BEATS_PER_LEASE = 3  # however long the configured interval is
_MAX_INTERVAL = 30.0  # seconds; the registry shows at most this age, as programs that read it expect
_MAX_RETRY_PAUSE = 2.0  # seconds between two attempts of a beat, and at most half the interval
_BUSY_RETRY_PAUSE = 0.5  # seconds until the beat that retries a row locked by another session
_MIN_BEAT_PAUSE = 0.05  # seconds between two beats: forged cancel messages must not cause a flood of calls
_RETURN_AFTER = 20.0  # seconds, or half a lease: then a beat returns the tasks of a claim whose reply was lost


class Heartbeat:
    """Owns the time of the next beat. It has a connection of its own, and is stopped last."""

    def __init__(
        self, queries: WorkerQueries, settings: WorkerSettings, registration: Registration, leases: Leases, log: Log
    ) -> None:
        self._queries = queries
        self._worker_id = settings.worker_id
        self._registration = registration
        self._leases = leases
        interval, lease = settings.heartbeat.total_seconds(), settings.lease.total_seconds()
        self._interval = min(interval, lease / _MIN_BEATS_PER_LEASE, _MAX_INTERVAL)
        self._log = log
        self._due = 0.0  # monotonic seconds
        self._is_rescheduled = asyncio.Event()

    async def run(self) -> None:
        """Beat at once and then every interval until cancelled; repeat a failed beat until it succeeds."""
        loop = asyncio.get_running_loop()
        max_pause = min(_MAX_RETRY_PAUSE, self._interval / 2)
        self._due = loop.time()
        while True:
            self._is_rescheduled.clear()
            if await wait_for_event(self._is_rescheduled, max(0.0, self._due - loop.time())):
                continue
            self._due = loop.time() + self._interval
            await retry_until_answered(self._beat, self._log, max_pause=max_pause)
            await asyncio.sleep(_MIN_BEAT_PAUSE)

    def beat_within(self, seconds: float = 0.0) -> None:
        """Make the next beat due in `seconds`, unless it is due earlier."""
        due = asyncio.get_running_loop().time() + seconds
        if due < self._due:
            self._due = due
            self._is_rescheduled.set()

    def cancel_requested(self, result_id: int) -> None:
        """A message says that a task is to be cancelled. Only the database's answer counts: beat now."""
        if self._leases.holds(result_id):
            self.beat_within()

    def claim_reply_lost(self) -> None:
        """A claim's reply was lost: beat as soon as the database may return its tasks."""
        self.beat_within(min(self._leases.duration.total_seconds() / 2, _RETURN_AFTER) + 0.5)

    async def _beat(self) -> None:
        sent_at = asyncio.get_running_loop().time()
        held = self._leases.tasks()
        incarnation = self._registration.incarnation
        answers = await self._queries.heartbeat(self._worker_id, incarnation, held, self._leases.duration)
        self._leases.apply(answers, held, sent_at)
        if any(answer.answer == "busy" for answer in answers):
            self.beat_within(_BUSY_RETRY_PAUSE)
        unknown_leases = [
            answer.result_id
            for answer in answers
            if answer.answer == "unknown" and not self._leases.holds(answer.result_id)
        ]
        if unknown_leases:  # the reply of a claim is on its way, or was lost: then a later beat returns them
            self._log.debug(Event.LEASES_UNKNOWN, task_ids=unknown_leases)
            self.claim_reply_lost()
