"""A schedule to test with, and a beat's calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from tests.sql.calls import Row, call, rows

CRON = "*/5 * * * *"
STEP = timedelta(minutes=5)


def schedule(conn: psycopg.Connection, name: str = "s", **more: Any) -> None:
    """Set a schedule, of every five minutes unless told otherwise."""
    arguments = {"name": name, "cron_expr": CRON, "task_path": "app.tasks.tick", **more}
    call(conn, "reproq_schedule_set", **arguments)


def row(conn: psycopg.Connection, name: str = "s") -> Row:
    (found,) = rows(conn, "select * from periodic_tasks where name = %s", [name])
    return found


def due(conn: psycopg.Connection) -> list[Row]:
    return call(conn, "reproq_schedules_due")


def fire(
    conn: psycopg.Connection, occurrences: Sequence[datetime], then: datetime | None, name: str = "s", **more: Any
) -> list[Row]:
    """Be a beat that looks now: fire these occurrences, plan `then`."""
    (looked,) = [found for found in due(conn) if found.name == name]
    arguments = {"cron_expr": looked.cron_expr, "time_zone": looked.time_zone, "since": looked.since, **more}
    return call(
        conn,
        "reproq_schedule_fire",
        name=name,
        occurrences=list(occurrences),
        next_run_at=then,
        **arguments,
    )
