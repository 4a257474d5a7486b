"""One database and its sessions for all tests of interleavings; at the end it must not have seen a deadlock."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.concurrency.interleave import Interleaver
from tests.support.database import Database, create_database, drop_database, wait_until


@pytest.fixture(scope="package")
def arena(server_dsn: str, template: Database) -> Iterator[Database]:
    """A database for the whole folder."""
    clone = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    yield clone
    drop_database(server_dsn, clone.name)


@pytest.fixture(scope="package")
def interleaver(server_dsn: str, arena: Database) -> Iterator[Interleaver]:
    """Runs scripts of several sessions in every order. At the end: no deadlock was seen in its database."""
    with Interleaver(arena.dsn) as interleaver:
        yield interleaver
    assert count_deadlocks(server_dsn, arena) == 0


def count_deadlocks(server_dsn: str, database: Database) -> int:
    """How many deadlocks the server broke in a database whose sessions are closed: they report as they end."""
    with psycopg.connect(server_dsn, autocommit=True) as observer:

        def all_gone() -> bool:
            return not observer.execute("select from pg_stat_activity where datname = %s", [database.name]).fetchall()

        wait_until(all_gone, what=f"the sessions of {database.name} are gone")
        row = observer.execute("select deadlocks from pg_stat_database where datname = %s", [database.name]).fetchone()
    assert row is not None
    return int(row[0])
