"""The query behind metrics."""

from __future__ import annotations

from typing import NamedTuple

from psycopg.sql import SQL

from reproq_listen.db.database import Database

_METRICS = SQL("select m.metric, m.label, m.value from {schema}reproq_metrics() as m")


class Number(NamedTuple):
    """One number about the fleet; the comment on `reproq_metrics` explains each."""

    metric: str
    label: str
    value: float


async def fleet_numbers(database: Database) -> list[Number]:
    """All numbers about the fleet. Raises CallError."""
    return [Number(**row) for row in await database.records(_METRICS)]
