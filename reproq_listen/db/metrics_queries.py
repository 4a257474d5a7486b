"""What metrics and probes ask of the database."""

from __future__ import annotations

from typing import NamedTuple

from psycopg.sql import SQL

from reproq_listen.db.worker_queries import Database

_METRICS = SQL("select m.metric, m.label, m.value from {schema}reproq_metrics() as m")


class Number(NamedTuple):
    """One number of the fleet: see the comment on the function."""

    metric: str
    label: str
    value: float


async def fleet_numbers(database: Database) -> list[Number]:
    """Count what the whole fleet does. Raises CallError."""
    return [Number(**row) for row in await database.records(_METRICS)]
