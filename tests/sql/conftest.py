"""One session for all tests of SQL functions, rolled back after each: its functions are compiled once."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.database import Database


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
