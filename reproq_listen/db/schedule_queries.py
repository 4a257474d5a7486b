"""What a beat asks of the database: which schedules are due, to run them, and when the next one is due."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL

from reproq_listen.db.database import Database

_DUE = SQL("""
    select d.name, d.cron_expr, d.time_zone, d.since, d.now
    from {schema}reproq_schedules_due(p_limit => %s::integer, p_skip => %s::text[]) as d
""")
_FIRE = SQL("""
    select f.scheduled_at, f.result_id, f.answer
    from {schema}reproq_schedule_fire(
        p_name => %s::text, p_cron_expr => %s::text, p_time_zone => %s::text, p_since => %s::timestamptz,
        p_occurrences => %s::timestamptz[], p_next_run_at => %s::timestamptz) as f
""")
_NEXT = SQL("""
    select extract(epoch from {schema}reproq_next_beat(p_skip => %s::text[]))::double precision as seconds
""")


class DueSchedule(NamedTuple):
    """A schedule to run. Its due occurrences are after `since` and not after `now`, both by the database's clock."""

    name: str
    cron_expr: str
    time_zone: str
    since: datetime
    now: datetime


class Fired(NamedTuple):
    """The answer about one occurrence: enqueued | missed | overlap | already; or `planned` when none was due."""

    scheduled_at: datetime | None
    result_id: int | None
    answer: str


class Schedules:
    """The calls of a beat. Every method raises CallError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def due(self, limit: int, skip: Collection[str]) -> list[DueSchedule]:
        """The schedules that are due or have no planned time yet, without those in `skip`."""
        return [DueSchedule(**row) for row in await self._database.records(_DUE, (limit, list(skip)))]

    async def fire(
        self, schedule: DueSchedule, occurrences: Sequence[datetime], next_run: datetime | None
    ) -> list[Fired]:
        """Run occurrences and plan the next one; no row if another beat or a writer came first."""
        args = (*schedule[:4], list(occurrences), next_run)
        return [Fired(**row) for row in await self._database.records(_FIRE, args)]

    async def next_beat(self, skip: Collection[str]) -> float | None:
        """Seconds until a schedule outside `skip` is due: 0 = now, None = nothing is scheduled."""
        rows = await self._database.records(_NEXT, (list(skip),))
        seconds: float | None = rows[0]["seconds"]
        return seconds
