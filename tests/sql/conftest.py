"""One session for all tests of SQL functions, rolled back after each: its functions are compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest

from tests.database import Clock, Database
from tests.sql.schedules import STEP, fire, schedule


@pytest.fixture(scope="session")
def warm_session(shared_database: Database) -> Iterator[psycopg.Connection]:
    """The session; nothing is ever committed in it."""
    with psycopg.connect(shared_database.dsn) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def conn(warm_session: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The session inside a transaction that is rolled back after the test."""
    warm_session.execute("select")  # begins the transaction, so that `conn.transaction()` is a savepoint of it
    yield warm_session
    warm_session.rollback()
    warm_session.execute("discard temp")
    warm_session.rollback()


@pytest.fixture
def start(conn: psycopg.Connection, clock: Clock) -> datetime:
    """A full five minutes, at which the clock stands."""
    clock.set(datetime.fromisoformat("2026-03-10T12:00:00+00:00"))
    return clock.now


@pytest.fixture
def planned(conn: psycopg.Connection, clock: Clock, start: datetime) -> datetime:
    """The schedule `s`, planned for five minutes later: that instant."""
    schedule(conn)
    assert [r.answer for r in fire(conn, [], start + STEP)] == ["planned"]
    return start + STEP
