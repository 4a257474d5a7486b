"""The connections that context.transaction and context.step take, with the real libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import django
import pytest
import sqlalchemy
from django.conf import settings
from sqlalchemy.orm import Session

from reproq_listen.child.requests import LeaseLostError
from reproq_listen.child.transaction import Completion, begin, statement
from tests.support.database import Database
from tests.support.workers import TASKS


def completion(connection: Any, database: Database) -> Completion:
    """The transaction of a task that has just been claimed; its id is 1."""
    with database.connect() as session:
        session.execute("create table effects (number integer not null)")
        session.execute("select reproq_enqueue(%s)", [f"{TASKS}.add"])
        (fence,) = session.execute(
            "select result_id, lease_token from reproq_claim('w', '{default}', 1, '1 minute')"
        ).fetchall()

    def call(text: str, values: Sequence[object]) -> tuple[str, Sequence[object]]:
        return statement(text, None), (*fence, *values)

    return Completion(connection, call, lambda: "", lambda value: value)


def found(database: Database) -> tuple[int, str, object]:
    with database.connect() as session:
        (effects,) = session.execute("select count(*) from effects").fetchall()
        (task,) = session.execute("select status, return_json from task_runs").fetchall()
    return (effects[0], *task)


def sqlalchemy_connection(database: Database) -> tuple[Any, Callable[[], object]]:
    url = sqlalchemy.URL.create("postgresql+psycopg", query=_query(database))
    connection = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).connect()
    return connection, lambda: connection.execute(sqlalchemy.text("insert into effects values (1)"))


def sqlalchemy_session(database: Database) -> tuple[Any, Callable[[], object]]:
    url = sqlalchemy.URL.create("postgresql+psycopg", query=_query(database))
    session = Session(sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool))
    return session, lambda: session.execute(sqlalchemy.text("insert into effects values (1)"))


def _query(database: Database) -> dict[str, str]:
    with database.connect() as session:
        info = session.info
        return {"host": info.host, "port": str(info.port), "user": info.user, "dbname": info.dbname}


def django_connection(database: Database) -> tuple[Any, Callable[[], object]]:
    from django.db import connections

    if not settings.configured:
        settings.configure(DATABASES={})
        django.setup()
    query = _query(database)
    options = {"HOST": query["host"], "PORT": query["port"], "USER": query["user"], "NAME": query["dbname"]}
    connections.settings["context"] = connections.configure_settings(
        {"default": {}, "context": {"ENGINE": "django.db.backends.postgresql", **options}}
    )["context"]
    if hasattr(connections._connections, "context"):
        del connections["context"]
    return connections["context"], lambda: connections["context"].cursor().execute("insert into effects values (1)")


KINDS = [sqlalchemy_connection, sqlalchemy_session, django_connection]


@pytest.mark.parametrize("kind", KINDS)
def test_connections_effect_and_end_are_one_commit(database: Database, kind: Callable[..., Any]) -> None:
    connection, write = kind(database)
    with completion(connection, database) as done:
        write()
        done.result = {"a": 1}
    assert done.is_done
    connection.close()
    assert found(database) == (1, "SUCCESSFUL", {"a": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_connections_lost_lease_rolls_back(database: Database, kind: Callable[..., Any]) -> None:
    connection, write = kind(database)
    transaction = completion(connection, database)

    def lose_the_lease_inside() -> None:
        with transaction, database.connect() as session:
            write()
            session.execute("update task_runs set lease_token = gen_random_uuid(), revision = revision + 1")

    with pytest.raises(LeaseLostError):
        lose_the_lease_inside()
    connection.close()
    assert found(database) == (0, "RUNNING", None)


@pytest.mark.parametrize("kind", KINDS)
def test_connections_error_rolls_back(database: Database, kind: Callable[..., Any]) -> None:
    connection, write = kind(database)
    transaction = completion(connection, database)

    def fail_inside() -> None:
        with transaction:
            write()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    connection.close()
    assert found(database) == (0, "RUNNING", None)


@pytest.mark.parametrize("kind", KINDS)
def test_connections_in_a_transaction_are_refused(database: Database, kind: Callable[..., Any]) -> None:
    """For a step they are taken: its value and its writes are committed by the outer transaction."""
    connection, write = kind(database)
    transaction = completion(connection, database)
    with begin(connection, is_outermost=False) as execute:
        assert execute("select %s::text", ["x"]) == "x"
        with pytest.raises(ValueError, match="in a transaction already"), transaction:
            pass
        with begin(connection, is_outermost=False):
            write()
    connection.close()
    assert found(database)[0] == 1
