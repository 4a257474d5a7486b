"""The Python client on a real database, and its tasks in every executor."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from reproq_listen import Client, InvalidArgumentsError
from reproq_listen.db.migrations import migrate
from reproq_listen.errors import SettingError
from tests.apps import client_tasks as app
from tests.support.database import Database
from tests.support.workers import WorkerProcess, row

TASKS = "tests.apps.client_tasks"
ADDRESS = app.Address("Ring 1", date(2026, 1, 2))
ORDER = app.Order(UUID(int=7), Decimal("12.50"), ADDRESS)
AT = datetime(2026, 3, 29, 2, 30, tzinfo=UTC)


def count(database: Database) -> int:
    with database.connect() as connection:
        (found,) = connection.execute("select count(*) from task_runs").fetchone() or (None,)
    assert found is not None
    return int(found)


def drain(database: Database, *flags: str) -> None:
    with WorkerProcess(database.dsn, "--drain", "--queues", "default,mail", *flags, allowed=TASKS) as worker:
        assert worker.wait(60) == 0


def test_client_enqueues_in_the_transaction_of_the_connection(database: Database) -> None:
    """With the data, or not at all; a client that is given a connection never commits."""
    with psycopg.connect(database.dsn, row_factory=dict_row) as connection:
        Client(connection).enqueue(app.send_welcome, 3)
        assert count(database) == 0
        connection.rollback()
    assert count(database) == 0
    with psycopg.connect(database.dsn, row_factory=dict_row) as connection:
        result = Client(connection).enqueue(app.send_welcome, 3, loud=True)
    found = row(database, result.id)
    assert (found["status"], found["queue_name"], found["lock_key"]) == ("READY", "mail", "user:3")
    assert (found["max_attempts"], found["timeout_seconds"]) == (5, 30)
    assert found["spec_json"]["exec"] == {"timeout_seconds": 30, "max_attempts": 5, "backoff_seconds": 2}
    assert (found["spec_json"]["args"], found["spec_json"]["kwargs"]) == ([3], {"loud": True})


def test_client_with_a_dsn_commits(database: Database) -> None:
    """Each call is a transaction; the connection is opened on use, and again after it broke."""
    with Client(database.dsn) as client:
        client.enqueue(app.send_welcome, 3)
        assert count(database) == 1
        with database.connect() as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reproq-listen client'"
            )
        with pytest.raises(psycopg.OperationalError):
            client.enqueue(app.send_welcome, 4)
        client.enqueue(app.send_welcome, 5)
    assert count(database) == 2


def test_client_with_a_dsn_in_a_forked_process(database: Database) -> None:
    """A web server may fork after the client has connected: the child opens a connection of its own."""
    with Client(database.dsn) as client:
        client.enqueue(app.send_welcome, 1)
        child = os.fork()
        if child == 0:
            try:
                client.enqueue(app.send_welcome, 2)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        client.enqueue(app.send_welcome, 3)
    assert count(database) == 3


def test_client_options_reach_the_row(database: Database) -> None:
    """Those of one call win over those of the task."""
    at = datetime(2030, 1, 1, tzinfo=UTC)
    changed = app.send_welcome.using(
        queue_name="slow",
        priority=-4,
        run_after=at,
        expires_at=at + timedelta(days=1),
        max_attempts=1,
        timeout=timedelta(minutes=2),
        backoff=timedelta(seconds=7),
        concurrency_key="all",
        concurrency_limit=3,
    )
    with database.connect() as connection:
        client = Client(connection)
        one = client.enqueue(changed, 1)
        (many,) = client.enqueue_many([changed.call(1)])
        soon = client.enqueue(app.send_welcome.using(run_after=timedelta(hours=1)), 1)
    first, second = row(database, one.id), row(database, many.id)
    names = (
        *("queue_name", "priority", "run_after", "expires_at", "max_attempts", "timeout_seconds", "lock_key"),
        *("concurrency_key", "concurrency_limit", "spec_json", "task_path"),
    )
    assert [first[name] for name in names] == [second[name] for name in names]
    assert first["run_after"] == at
    assert first["spec_json"]["exec"] == {"timeout_seconds": 120, "max_attempts": 1, "backoff_seconds": 7}
    delayed = row(database, soon.id)
    assert delayed["run_after"] - delayed["enqueued_at"] == timedelta(hours=1)


def test_client_enqueue_many_keeps_the_order(database: Database) -> None:
    """All in one statement; different tasks, options and keys among them."""
    calls = [app.debounced.call("a", 1), app.send_welcome.call(2), app.debounced.call("a", 3)]
    with database.connect() as connection:
        results = Client(connection).enqueue_many(calls)
        assert Client(connection).enqueue_many([]) == []
    assert results[0].id == results[2].id != results[1].id
    assert row(database, results[0].id)["spec_json"]["args"] == ["a", 3]
    assert [result.args for result in results] == [("a", 1), (2,), ("a", 3)]


def test_client_refuses_before_any_sql(database: Database) -> None:
    """So the transaction of the program goes on."""
    with database.connect() as connection:
        with pytest.raises(InvalidArgumentsError):
            Client(connection).enqueue(app.send_welcome, "x")  # type: ignore[call-overload]
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_client_in_another_schema(empty_database: Database) -> None:
    """Named in the call: the search path of the program's connection stays as it is."""
    migrate(empty_database.dsn, schema='job"s %', report=lambda _: None)
    with empty_database.connect() as connection:
        result = Client(connection, schema='job"s %').enqueue(app.send_welcome, 1)
        found = connection.execute('select task_path from "job""s %".task_runs').fetchone()
    assert found == (app.send_welcome.module_path,)
    assert result.id == 1


def test_client_says_what_it_can_use() -> None:
    """A wrong target, a wrong alias and a wrong DSN are told apart."""
    with pytest.raises(SettingError, match=r"Client needs a DSN, a psycopg Connection .*; not builtins.int"):
        Client(3)


@pytest.mark.parametrize("executor", ["spawn", "fork", "pool"])
def test_tasks_with_decorator_run(database: Database, executor: str) -> None:
    """Typed arguments arrive as their types, results are stored, errors end an attempt as the task says."""
    with database.connect() as connection:
        client = Client(connection)
        welcome = client.enqueue(app.send_welcome, 3, loud=True)
        typed = client.enqueue(app.typed, ORDER, AT, timedelta(minutes=5), backup=ADDRESS)
        untyped = client.enqueue(app.untyped, [1], 2, key="text")
        later = client.enqueue(app.later, 3)
        context = client.enqueue(app.with_context, [AT])
        wrong = client.enqueue(app.wrong_result)
        wrong_typed = client.enqueue(app.wrong_typed_result)
        missing = client.enqueue(app.look_up, "b")
        refused = client.enqueue(app.connect, "wrong")
        away = client.enqueue(app.connect, "away")
        from_psql = connection.execute("select reproq_enqueue(%s, '[{}]')", [f"{TASKS}.typed"]).fetchone()
    drain(database, "--executor", executor)
    assert row(database, welcome.id)["return_json"] == "welcome 3!"
    doubled = replace_total(ORDER, Decimal("25.00"))
    assert app.typed.codec.decode_result(row(database, typed.id)["return_json"]) == doubled
    assert row(database, untyped.id)["return_json"] == [[1], [2], {"key": "text"}]
    assert row(database, later.id)["return_json"] == "2026-01-03T00:00:00Z"
    assert row(database, context.id)["return_json"] == {"attempt": 1, "times": 1}

    def ended(result_id: int) -> tuple[str, int, str]:
        found = row(database, result_id)
        error = found["errors_json"][-1]
        return error["kind"], found["attempts"], error.get("exception_class") or error["message"]

    place = (
        "Object of type set is not JSON serializable (the return value['rows'][1] is of type set, which is not JSON)"
    )
    assert ended(wrong.id) == ("invalid_result", 1, f"the return value cannot be stored as JSON: {place}")
    assert ended(wrong_typed.id)[:2] == ("invalid_result", 1)
    assert ended(missing.id) == ("discarded", 1, "KeyError")
    assert ended(refused.id) == ("discarded", 1, "ValueError")
    assert ended(away.id) == ("app_error", 2, "ConnectionError")
    assert from_psql is not None
    assert ended(from_psql[0])[:2] == ("invalid_spec", 1)


def replace_total(order: app.Order, total: Decimal) -> app.Order:
    return app.Order(order.number, total, replace(order.ship_to))
