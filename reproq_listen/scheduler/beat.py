"""The beat: enqueues what schedules say, at the database's time. Any number may run; none leads.

It reads expressions and sleeps; that an occurrence happens once, and by which policy, the database decides. So a beat
that is killed in the middle of anything loses nothing, and the host's clock does not matter.
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
"""Occurrences that are looked back for, after a time without a beat."""

_BATCH = 100
_MIN_PAUSE = 0.001  # seconds; timers may end a little early
_BUSY_PAUSE = 0.2  # seconds until a schedule that another session holds is looked at again


class Beat:
    """Owns the timer. `ring` it when a schedule was written; without that it looks every `interval`."""

    def __init__(self, schedules: Schedules, interval: timedelta, log: Log) -> None:
        self._schedules = schedules
        self._interval = interval.total_seconds()
        self._log = log
        self._wake = WakeFlag()
        self._reported: dict[str, tuple[str, str, str]] = {}  # unreadable schedules, as they were reported
        self._skip: set[str] = set()  # of these, those not to be asked for before the next full look

    def notify(self) -> None:
        """A schedule was written: look now."""
        self._wake.notify()

    async def run(self) -> None:
        """Fire and sleep until cancelled. A database that is away is waited for."""
        while True:
            self._wake.clear()
            self._skip.clear()
            await self._look_until_told()

    async def once(self) -> Counter[str]:
        """One round over all that is due. Gives how many occurrences came to which answer. Raises CallError."""
        self._skip.clear()
        return await self._round()

    async def _look_until_told(self) -> None:
        """Fire what falls due, exactly when it does, until the bell rings or the interval is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._interval
        while True:
            await retry_until_answered(self._round, self._log, longest_pause=self._interval)
            wake = await retry_until_answered(
                lambda: self._schedules.next_beat(self._skip), self._log, longest_pause=self._interval
            )
            left = until - loop.time()
            pause = left if wake is None else min(left, _BUSY_PAUSE if wake <= 0 else max(wake, _MIN_PAUSE))
            if await self._wake.wait(max(0.0, pause)) or loop.time() >= until:
                return

    async def _round(self) -> Counter[str]:
        """Fire all that is due, each schedule by itself: one that cannot be read or run stops no other."""
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
        self._say_fired(schedule, fired)
        return [each.answer for each in fired] or ("elsewhere",)

    def _say_fired(self, schedule: DueSchedule, fired: Sequence[Fired]) -> None:
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
        """Say once what is wrong with a schedule, as long as neither changes; leave it out until the next full look."""
        self._skip.add(schedule.name)
        found = (schedule.cron_expr, schedule.time_zone, reason)
        if self._reported.get(schedule.name) != found:
            self._reported[schedule.name] = found
            self._log.error(Event.SCHEDULE_UNREADABLE, schedule=schedule.name, reason=reason)
