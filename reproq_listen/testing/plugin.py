"""The fixtures. pytest imports this in every project that has reproq-listen, so the rest is imported when used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from reproq_listen.client.client import Client
    from reproq_listen.testing import Clock, DrainingWorker, EnqueuedTasks, TestDatabase


@pytest.fixture(scope="session")
def reproq_server() -> Iterator[str]:
    """The DSN of the server of all tests: that of REPROQ_TEST_DSN, else of an embedded one."""
    from reproq_listen.testing.database import server

    with server(os.environ.get("REPROQ_TEST_DSN")) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def reproq_prepare() -> Callable[[str], object]:
    """Override it to add the tables of the application: it gives a function that is called with the DSN, once."""
    return lambda _: None


@pytest.fixture(scope="session")
def reproq_template(reproq_server: str, reproq_prepare: Callable[[str], object]) -> Iterator[str]:
    """The DSN of the database that every test gets a copy of."""
    from reproq_listen.testing.database import template

    with template(reproq_server, reproq_prepare) as dsn:
        yield dsn


@pytest.fixture
def reproq_database(reproq_template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestDatabase]:
    """A fresh, migrated database for this test. `DATABASE_URL` names it meanwhile."""
    from reproq_listen.testing.database import copy_of

    with copy_of(reproq_template) as database:
        monkeypatch.setenv("DATABASE_URL", database.dsn)
        yield database


@pytest.fixture
def reproq_client(reproq_database: TestDatabase) -> Iterator[Client]:
    """A client of the test's database. Each call is committed."""
    from reproq_listen.client.client import Client

    with Client(reproq_database.dsn) as client:
        yield client


@pytest.fixture
def reproq_clock(reproq_database: TestDatabase) -> Clock:
    """The clock of the test's database: `reproq_clock.travel(hours=1)`."""
    from reproq_listen.testing import Clock

    return Clock(reproq_database.dsn)


@pytest.fixture
def reproq_worker(reproq_database: TestDatabase) -> Iterator[DrainingWorker]:
    """A worker in the process of the test: `reproq_worker.drain()`."""
    from reproq_listen.testing import DrainingWorker

    with DrainingWorker(reproq_database.dsn) as worker:
        yield worker


@pytest.fixture
def assert_enqueued(reproq_database: TestDatabase, reproq_client: Client) -> EnqueuedTasks:
    """Asserts that a task waits: `assert_enqueued(send_welcome, user_id=3)`."""
    from reproq_listen.testing import EnqueuedTasks

    return EnqueuedTasks(reproq_database.dsn, reproq_client)
