"""Beats as processes, on a database whose clock the test sets; their own host's clock may be wrong."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.database import Database
from tests.support.processes import LoggingProcess

# A host whose clock is off by REPROQ_TEST_SKEW seconds, for all that Python code can see.
_SKEWED = """
import datetime, os, time
skew = float(os.environ["REPROQ_TEST_SKEW"])
true_time = time.time
time.time = lambda: true_time() + skew
class Skewed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Skewed
"""


class BeatProcess(LoggingProcess):
    """`reproq-listen beat` on a DSN."""

    def __init__(self, dsn: str, *flags: str, folder: Path | None = None, skew: float = 0) -> None:
        environ = dict(os.environ)
        if folder is not None:
            (folder / "sitecustomize.py").write_text(_SKEWED)
            environ |= {"PYTHONPATH": str(folder), "REPROQ_TEST_SKEW": str(skew)}
        super().__init__("reproq_listen", "beat", "--dsn", dsn, *flags, environ=environ)


def set_clock(connection: psycopg.Connection, now: datetime, speed: float = 1) -> None:
    """From this moment on the database says `now`, running at `speed` times real time."""
    connection.execute(
        sql.SQL(
            "create or replace function reproq_now() returns timestamptz language sql volatile parallel safe as"
            " $$ select {}::timestamptz + (clock_timestamp() - {}::timestamptz) * {} $$"
        ).format(sql.Literal(now.isoformat()), sql.Literal(_now(connection).isoformat()), sql.Literal(speed))
    )


def _now(connection: psycopg.Connection) -> datetime:
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def database_now(connection: psycopg.Connection) -> datetime:
    """What the database's functions take for the time."""
    row = connection.execute("select reproq_now()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def tasks_of(database: Database, schedule: str) -> list[datetime]:
    """The occurrences of a schedule that were enqueued, in order, each as many times as it was."""
    with database.connect() as connection:
        return [
            row[0]
            for row in connection.execute(
                "select (spec_json ->> 'scheduled_at')::timestamptz from task_runs"
                " where spec_json ->> 'periodic_name' = %s order by 1",
                [schedule],
            )
        ]
