"""Beats as processes, on a database whose clock the test sets; their own host's clock may be wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.database import Database, wait_until
from tests.e2e.workers import ROOT

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


class BeatProcess:
    """`reproq-listen beat` on a DSN. Killed at the end of its `with` block if it still runs."""

    def __init__(self, dsn: str, *flags: str, folder: Path | None = None, skew: float = 0) -> None:
        environ = dict(os.environ)
        if folder is not None:
            (folder / "sitecustomize.py").write_text(_SKEWED)
            environ |= {"PYTHONPATH": str(folder), "REPROQ_TEST_SKEW": str(skew)}
        command = [sys.executable, "-m", "reproq_listen", "beat", "--dsn", dsn, *flags]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ
        )
        self.events: list[dict[str, Any]] = []
        self.plain: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        if error is not None:
            sys.stdout.write("".join(f"{event}\n" for event in [*self.events, *self.plain]))

    def seen(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The logged events of this name with these fields."""
        wanted = {"event": event, **fields}
        return [line for line in list(self.events) if all(line.get(key) == value for key, value in wanted.items())]

    def wait_for(self, event: str, *, times: int = 1, seconds: float = 15, **fields: object) -> None:
        wait_until(
            lambda: len(self.seen(event, **fields)) >= times, what=f"{event} {fields} x {times}", seconds=seconds
        )

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                self.plain.append(line.decode(errors="replace"))


def set_clock(connection: psycopg.Connection, now: datetime, speed: float = 1) -> None:
    """From this moment on the database says `now`, running `speed` times as fast as time does."""
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
    """The occurrences of a schedule that were enqueued, in order, each as often as it was."""
    with database.connect() as connection:
        return [
            row[0]
            for row in connection.execute(
                "select (spec_json ->> 'scheduled_at')::timestamptz from task_runs"
                " where spec_json ->> 'periodic_name' = %s order by 1",
                [schedule],
            )
        ]
