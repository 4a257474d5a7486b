"""One server for the session, one template database built by the migrations, a clone for each test that commits.

`REPROQ_TEST_DSN` names a server (a DSN of a superuser); without it an embedded one is started, without fsync.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from reproq_listen.db.dsn import conninfo
from reproq_listen.embedded.server import EmbeddedServer
from tests.support.database import Clock, Database, build, create_database, drop_database, illegal_rows

TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}


def pytest_configure() -> None:
    """Programs under test heed every signal, also when the tests run under nohup or in the background."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A DSN of the maintenance database of the server that all tests share."""
    given = os.environ.get("REPROQ_TEST_DSN")
    if given:
        yield conninfo(given, "REPROQ_TEST_DSN")
        return
    with EmbeddedServer(settings=TEST_SETTINGS) as server:
        yield server.dsn()


@pytest.fixture(scope="session")
def template(server_dsn: str) -> Iterator[Database]:
    """The database that all others are clones of: built once, by the migrations."""
    database = create_database(server_dsn, f"reproq_template_{uuid.uuid4().hex[:12]}")
    try:
        build(database)
        yield database
    finally:
        drop_database(server_dsn, database.name)


@pytest.fixture
def database(server_dsn: str, template: Database) -> Iterator[Database]:
    """A fresh database with the whole schema, for a test that commits."""
    clone = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    yield clone
    drop_database(server_dsn, clone.name)


@pytest.fixture
def empty_database(server_dsn: str) -> Iterator[Database]:
    """A fresh database without our schema."""
    created = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}")
    yield created
    drop_database(server_dsn, created.name)


@pytest.fixture(scope="session")
def shared_database(server_dsn: str, template: Database) -> Iterator[Database]:
    """One clone for all tests that roll back; nothing is ever committed to it."""
    clone = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    yield clone
    drop_database(server_dsn, clone.name)


@pytest.fixture
def conn(shared_database: Database) -> Iterator[psycopg.Connection]:
    """A connection inside a transaction that is rolled back after the test, which must leave legal rows only."""
    with psycopg.connect(shared_database.dsn) as connection:
        yield connection
        if connection.info.transaction_status is TransactionStatus.INTRANS:
            assert illegal_rows(connection) == []
        connection.rollback()


@pytest.fixture
def clock(conn: psycopg.Connection) -> Clock:
    """Stops `reproq_now()` inside the transaction of `conn`; moves on request."""
    return Clock(conn)


@pytest.fixture
def connect(database: Database) -> Iterator[Callable[[], psycopg.Connection]]:
    """Opens sessions to `database`, READ COMMITTED and not autocommit; closed after the test."""
    opened: list[psycopg.Connection] = []

    def open_session() -> psycopg.Connection:
        connection = psycopg.connect(database.dsn)
        opened.append(connection)
        return connection

    yield open_session
    for connection in opened:
        connection.close()


@pytest.fixture
def own_server() -> Iterator[tuple[EmbeddedServer, Database]]:
    """A server of the test's own, with the schema in a database, for tests that stop, crash and restart it."""
    # What was committed must survive a crash: synchronous_commit stays on.
    with EmbeddedServer(settings={**TEST_SETTINGS, "synchronous_commit": "on", "max_connections": "50"}) as server:
        database = create_database(server.dsn(), "reproq")
        build(database)
        yield server, database
