"""Connections that tasks make through Django are kept and closed as between two requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reproq_listen.executors.pool.executor import PoolExecutor
from tests.apps import pool_django
from tests.support.database import Database
from tests.support.executing import until
from tests.support.pooling import in_loop, pool, run, value

MODULE = "tests.apps.pool_django"


@pytest.fixture
def project(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Children find the project and its database; connections are kept for an hour."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", MODULE)
    monkeypatch.setenv(pool_django.DSN_ENV, database.dsn)
    monkeypatch.setenv(pool_django.MAX_AGE_ENV, "3600")
    with database.connect() as connection:
        connection.execute("create table written (at timestamptz default now())")
    return database


@asynccontextmanager
async def django_pool() -> AsyncIterator[PoolExecutor]:
    async with pool(1, allowed_task_modules=(MODULE,), preload=(MODULE,)) as p:
        yield p


def sessions(database: Database) -> int:
    with database.connect() as connection:
        query = "select count(*) from pg_stat_activity where application_name = 'pool_django'"
        found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])


def written(database: Database) -> int:
    with database.connect() as connection:
        found = connection.execute("select count(*) from written").fetchone()
    assert found is not None
    return int(found[0])


def test_lost_connection_costs_one_task_at_most(project: Database) -> None:
    """Later tasks connect again; a connection that works is kept."""

    async def main() -> None:
        async with django_pool() as p:
            backend = await value(p, "backend", module=MODULE)
            assert await value(p, "backend", module=MODULE) == backend
            with project.connect() as connection:
                connection.execute("select pg_terminate_backend(%s, 5000)", [backend])
            await run(p, "backend", module=MODULE)
            assert await value(p, "backend", module=MODULE) != backend

    in_loop(main())


@pytest.mark.parametrize("name", ["leave_autocommit_off", "leave_atomic"])
def test_open_transaction_of_a_task_does_no_harm_to_others(project: Database, name: str) -> None:
    """It is rolled back at once, and what the next tasks write is committed."""

    async def main() -> None:
        async with django_pool() as p:
            former = await value(p, name, module=MODULE)
            await until(lambda: not sessions(project), "the transaction is gone")
            for _ in range(3):
                assert await value(p, "insert", module=MODULE) == former

    in_loop(main())
    assert written(project) == 3


def test_connections_live_as_long_as_the_project_says(project: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """CONN_MAX_AGE 0, which is Django's default: no longer than the task."""
    monkeypatch.setenv(pool_django.MAX_AGE_ENV, "0")

    async def main() -> None:
        async with django_pool() as p:
            backend = await value(p, "backend", module=MODULE)
            await until(lambda: not sessions(project), "nothing is connected")
            assert await value(p, "backend", module=MODULE) != backend

    in_loop(main())
