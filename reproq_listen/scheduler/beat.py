"""The beat: enqueues the tasks of schedules, by the database's clock. Any number of beats may run; none leads.

A beat reads cron expressions and sleeps. The database decides whether an occurrence runs, and that it runs once. So a
beat may be killed at any point without losing an occurrence, and the clock of its host does not matter.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta

from reproq_listen.db.errors import CallRefused, DatabaseBusy, ValueRefused
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.schedule_queries import DueSchedule, Fired, Schedules
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import WakeFlag
from reproq_listen.scheduler.cron import Cron

MAX_MISSED = 100
"""Occurrences of a schedule that are made up for after a time without a beat."""

_BATCH = 100
_MIN_PAUSE = 0.001  # seconds; timers may expire slightly early
_BUSY_PAUSE = 0.2  # seconds until a schedule that another session holds is tried again


class Beat:
    """Owns the timer. Call `notify` when a schedule was written; without that the beat looks every `interval`."""

    def __init__(self, schedules: Schedules, interval: timedelta, log: Log) -> None:
        self._schedules = schedules
        self._interval = interval.total_seconds()
        self._log = log
        self._wake = WakeFlag()
        self._reported: dict[str, tuple[str, str, str]] = {}  # unreadable schedules: expression, zone, reason
        self._skip: set[str] = set()  # those of them to leave out until the next look at all schedules

    def notify(self) -> None:
        """A schedule was written: look now."""
        self._wake.notify()

    async def run(self) -> None:
        """Fire and sleep until cancelled; wait for a database that is away."""
        while True:
            self._wake.clear()
            self._skip.clear()
            await self._fire_until_notified()

    async def once(self) -> Counter[str]:
        """Fire all schedules that are due, once. Returns the number of occurrences by answer. Raises CallError."""
        self._skip.clear()
        return await self._round()

    async def _fire_until_notified(self) -> None:
        """Fire each schedule exactly when it is due, until `notify` or the end of the interval."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._interval
        while True:
            await retry_until_answered(self._round, self._log, max_pause=self._interval)
            wake = await retry_until_answered(
                lambda: self._schedules.next_beat(self._skip), self._log, max_pause=self._interval
            )
            left = until - loop.time()
            pause = left if wake is None else min(left, _BUSY_PAUSE if wake <= 0 else max(wake, _MIN_PAUSE))
            if await self._wake.wait(max(0.0, pause)) or loop.time() >= until:
                return

    async def _round(self) -> Counter[str]:
        """Fire all schedules that are due, each by itself: one that cannot be read or run does not stop the others."""
        counts: Counter[str] = Counter()
        seen: set[str] = set()
        while True:
            due = await self._schedules.due(_BATCH, self._skip | seen)
            for schedule in due:
                seen.add(schedule.name)
                counts.update(await self._fire(schedule))
            if len(due) < _BATCH:
                return counts

    async def _fire(self, schedule: DueSchedule) -> Collection[str]:
        try:
            cron = Cron(schedule.cron_expr, schedule.time_zone)
            occurrences = cron.latest(schedule.since, schedule.now, MAX_MISSED)
            fired = await self._schedules.fire(schedule, occurrences, cron.next(schedule.now))
        except DatabaseBusy:
            return ("busy",)
        except (ValueError, CallRefused, ValueRefused) as error:
            self._report(schedule, str(error))
            return ("unreadable",)
        self._reported.pop(schedule.name, None)
        self._log_fired(schedule, fired)
        return [each.answer for each in fired] or ("elsewhere",)

    def _log_fired(self, schedule: DueSchedule, fired: Sequence[Fired]) -> None:
        for each in fired:
            if each.answer == "enqueued" and each.scheduled_at is not None:
                self._log.info(
                    Event.SCHEDULE_FIRED,
                    schedule=schedule.name,
                    scheduled_at=each.scheduled_at,
                    task_id=each.result_id,
                    late_seconds=schedule.now - each.scheduled_at,
                )
        others = Counter(each.answer for each in fired if each.answer not in ("enqueued", "planned"))
        if others:
            self._log.info(Event.SCHEDULE_SKIPPED, schedule=schedule.name, **others)

    def _report(self, schedule: DueSchedule, reason: str) -> None:
        """Log an unreadable schedule once until it or the reason changes. Leave it out until the next full look."""
        self._skip.add(schedule.name)
        found = (schedule.cron_expr, schedule.time_zone, reason)
        if self._reported.get(schedule.name) != found:
            self._reported[schedule.name] = found
            self._log.error(Event.SCHEDULE_UNREADABLE, schedule=schedule.name, reason=reason)
