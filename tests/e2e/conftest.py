"""Fixtures of the tests with real processes."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.commands import Shell
from tests.support.database import Database
from tests.support.executing import MODE


@pytest.fixture(params=["spawn", "fork"])
def each_mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once in each executor mode that has a process for every attempt: they make the same promises."""
    token = MODE.set(request.param)
    yield request.param
    MODE.reset(token)


@pytest.fixture
def shell(database: Database) -> Shell:
    """Commands on the test's own database."""
    return Shell(database)


@pytest.fixture
def session(database: Database) -> Iterator[psycopg.Connection]:
    """A session in autocommit mode on the test's own database."""
    with database.connect() as connection:
        yield connection
