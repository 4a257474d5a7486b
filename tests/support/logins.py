"""Login roles that are members of one of our groups and nothing else, as services and people have them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.database import Database


@contextmanager
def login(database: Database, *groups: str, options: LiteralString = "") -> Iterator[str]:
    """Make a role that may log in and is a member of `groups`; gives its DSN. Dropped with all it owns."""
    name, password = f"reproq_test_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    role = sql.Identifier(name)
    with database.connect() as admin:
        admin.execute(
            sql.SQL("create role {} login password {} {}").format(
                role,
                sql.Literal(password),
                sql.SQL(options),
            )
        )
        for group in groups:
            admin.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), role))
    try:
        yield make_conninfo(database.dsn, user=name, password=password)
    finally:
        with database.connect() as admin:
            admin.execute("select pg_terminate_backend(a.pid) from pg_stat_activity a where a.usename = %s", [name])
            admin.execute(sql.SQL("drop owned by {} cascade").format(role))
            admin.execute(sql.SQL("drop role {}").format(role))


def who(connection: psycopg.Connection) -> str:
    """The role that logged in."""
    row = connection.execute("select session_user::text").fetchone()
    assert row is not None
    return str(row[0])
