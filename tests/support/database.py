"""What tests need of a database: making and dropping, the schema, a clock to set, and looking at other sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reproq_listen.db.migrations import migrate

ROOT = Path(__file__).resolve().parents[2]
SQL_FOLDER = ROOT / "sql"


@dataclass(frozen=True)
class Database:
    """One database of the test server."""

    name: str
    dsn: str

    def connect(self, *, autocommit: bool = True) -> psycopg.Connection:
        """A new session; the caller closes it."""
        return psycopg.connect(self.dsn, autocommit=autocommit)


def create_database(server_dsn: str, name: str, *, template: str = "template0", encoding: str = "UTF8") -> Database:
    """Create a database on the server; as a copy of `template`, its rows and settings included."""
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template {} encoding {} {}").format(
                sql.Identifier(name),
                sql.Identifier(template),
                sql.Literal(encoding),
                sql.SQL("" if encoding == "UTF8" else "locale 'C'"),
            )
        )
    return Database(name, make_conninfo(server_dsn, dbname=name))


def drop_database(server_dsn: str, name: str) -> None:
    """Drop a database, its sessions included."""
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def install_script() -> list[Path]:
    """The files that sql/install.sql includes, in its order."""
    lines = (SQL_FOLDER / "install.sql").read_text().splitlines()
    return [SQL_FOLDER / line.split()[1] for line in lines if line.startswith("\\ir ")]


def build(database: Database) -> None:
    """Build the schema with the migrations, as a deployment does."""
    migrate(database.dsn, report=lambda _: None)


def install(database: Database) -> None:
    """Build the schema from the live files under sql/, as `psql -1 -f sql/install.sql` does."""
    with database.connect() as connection, connection.transaction():
        connection.execute("set local search_path = public, pg_temp")
        for path in install_script():
            connection.execute(path.read_bytes())


ILLEGAL = """
    select t.result_id, t.status from public.task_runs t
    where t.status not in ('READY', 'RUNNING', 'WAITING', 'SUCCESSFUL', 'FAILED', 'CANCELLED')
       or (t.status = 'RUNNING') <> (t.lease_token is not null)
       or (t.status = 'RUNNING') <> (t.leased_until is not null)
       or (t.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED')) <> (t.finished_at is not null)
       or t.concurrency_slot is not null and (t.status <> 'RUNNING' or t.concurrency_slot < 1)
       or t.blocked_on <> '' and t.status <> 'READY'
       or octet_length(t.queue_name) > 512 or octet_length(t.task_path) > 1024
       or not isfinite(t.enqueued_at)
       or not isfinite(coalesce(t.run_after, t.leased_until, t.expires_at, t.enqueued_at))
"""


def illegal_rows(connection: psycopg.Connection) -> list[tuple[int, str]]:
    """Tasks with columns that do not fit their status. Our functions keep this; the table has no constraint for it."""
    if connection.execute("select to_regclass('public.task_runs') is null").fetchone() == (True,):
        return []
    return connection.execute(ILLEGAL).fetchall()


class Clock:
    """Stands in for `reproq_now()` inside one transaction; starts at the transaction's `now()` and moves on request."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        connection.execute(
            "create or replace function reproq_now() returns timestamptz language sql volatile parallel safe"
            " as $$ select current_setting('reproq_test.now')::timestamptz $$"
        )
        row = connection.execute("select now()").fetchone()
        assert row is not None
        self.now: datetime = row[0]
        self.set(self.now)

    def set(self, now: datetime) -> None:
        """Set the clock, forwards or backwards."""
        self.now = now
        self._connection.execute("select set_config('reproq_test.now', %s, true)", [now.isoformat()])

    def advance(self, **duration: float) -> None:
        """Move the clock: `clock.advance(seconds=30)`."""
        self.set(self.now + timedelta(**duration))


def wait_until(condition: Callable[[], bool], *, what: str, seconds: float = 30) -> None:
    """Poll until the condition holds; fails the test after `seconds`, saying what never came about."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        pause.wait(0.005)


def in_background(
    connection: psycopg.Connection, query: LiteralString, params: list[Any] | None = None
) -> Future[list[Any]]:
    """Run one statement in a thread, because it will wait for a lock; the future has its rows or its error."""
    future: Future[list[Any]] = Future()

    def run() -> None:
        try:
            cursor = connection.execute(query, params)
            future.set_result(cursor.fetchall() if cursor.description else [])
        except psycopg.Error as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def expect_blocked(blocked: psycopg.Connection, by: psycopg.Connection, *, seconds: float = 5) -> None:
    """Wait until the server says that one session waits for a lock that the other holds."""
    pids = [by.info.backend_pid, blocked.info.backend_pid]
    with psycopg.connect(blocked.info.dsn, password=blocked.info.password, autocommit=True) as observer:

        def is_blocked() -> bool:
            row = observer.execute("select %s = any (pg_blocking_pids(%s))", pids).fetchone()
            return row is not None and bool(row[0])

        wait_until(is_blocked, what=f"session {pids[1]} waits for session {pids[0]}", seconds=seconds)
