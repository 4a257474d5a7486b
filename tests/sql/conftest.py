"""One session for all tests of SQL functions, rolled back after each: its functions are compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.sql.schedules import STEP, fire, schedule
from tests.support.database import Clock, Database


@pytest.fixture(scope="session")
def warm_sessions(shared_database: Database) -> Iterator[list[psycopg.Connection]]:
    """The session, once it was needed, or none; nothing is ever committed in it."""
    sessions: list[psycopg.Connection] = []
    yield sessions
    for session in sessions:
        session.close()


@pytest.fixture
def conn(shared_database: Database, warm_sessions: list[psycopg.Connection]) -> Iterator[psycopg.Connection]:
    """The session inside a transaction that is rolled back after the test. A test that ran out of time breaks it."""
    if warm_sessions and warm_sessions[0].info.transaction_status != TransactionStatus.IDLE:
        warm_sessions.pop().close()
    if not warm_sessions:
        warm_sessions.append(shared_database.connect(autocommit=False))
    session = warm_sessions[0]
    session.execute("select")  # begins the transaction, so that `conn.transaction()` is a savepoint of it
    yield session
    session.rollback()
    session.execute("discard temp")
    session.rollback()


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
