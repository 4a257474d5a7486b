"""A server for the session of tests, a template that is migrated once, and a copy of it for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import psycopg
from psycopg.conninfo import make_conninfo

from reproq_listen.db import testing_queries as queries
from reproq_listen.db.dsn import conninfo
from reproq_listen.db.migrations import migrate
from reproq_listen.embedded.server import EmbeddedServer

SERVER_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
"""Of the embedded server: what a test writes need not survive a crash."""


@dataclass(frozen=True)
class TestDatabase:
    """A fresh database with the schema of reproq, for one test."""

    __test__: ClassVar[bool] = False  # pytest: not a class of tests

    dsn: str

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """Open a session. The caller closes it."""
        return psycopg.connect(self.dsn, autocommit=autocommit)


@contextmanager
def server(given: str | None) -> Iterator[str]:
    """Give the DSN of a server on which databases may be created: the given one, or an embedded one.

    Raises EmbeddedError if none is given and the extra `embedded` is not installed.
    """
    if given:
        yield conninfo(given, "REPROQ_TEST_DSN")
        return
    with EmbeddedServer(settings=SERVER_SETTINGS) as embedded:
        yield embedded.dsn()


@contextmanager
def template(server_dsn: str, prepare: Callable[[str], object]) -> Iterator[str]:
    """Create the database that tests get copies of, migrate it, and let the application add its own tables."""
    with _created(server_dsn, "template0") as dsn:
        migrate(dsn, report=lambda _: None)
        prepare(dsn)
        yield dsn


@contextmanager
def copy_of(template_dsn: str) -> Iterator[TestDatabase]:
    """Copy the template, which takes milliseconds. The copy is dropped at the end, whatever is connected to it."""
    with _created(template_dsn, _name_in(template_dsn)) as dsn:
        yield TestDatabase(dsn)


@contextmanager
def _created(server_dsn: str, source: str) -> Iterator[str]:
    name = f"reproq_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(queries.create_database(name, source))
        try:
            yield make_conninfo(server_dsn, dbname=name)
        finally:
            admin.execute(queries.drop_database(name))


def _name_in(dsn: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
