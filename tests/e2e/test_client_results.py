"""Results through the client: read, waited for, typed; workflows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from unittest import mock

import psycopg
import pytest
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from reproq_listen import (
    Client,
    InvalidTaskError,
    NoSuchTaskError,
    ReproqError,
    TaskFailedError,
    TaskUnfinishedError,
    chain,
    chord,
    group,
)
from reproq_listen.client.connections import Listening
from tests.apps import client_tasks as app
from tests.support.database import Database, wait_until
from tests.support.workers import row


@pytest.fixture
def client(database: Database) -> Iterator[Client]:
    with Client(database.dsn) as client:
        yield client


def finish(connection: psycopg.Connection, result_id: int, value: object) -> None:
    """Claim every task that is due, and complete one of them."""
    rows = connection.execute(
        "select c.result_id, c.lease_token from reproq_claim('w1', '{default,mail}', 100, interval '1 minute') as c"
    ).fetchall()
    tokens: dict[int, object] = dict(rows)
    connection.execute(
        "select * from reproq_complete(array[%s::bigint], array[%s::uuid], array[%s::jsonb])",
        [result_id, tokens[result_id], Jsonb(value)],
    )


def test_result_is_a_snapshot(client: Client, connect: Callable[[], psycopg.Connection]) -> None:
    """Refreshed on request; the return value has the type of the annotation."""
    result = client.enqueue(app.later, 3)
    assert (result.status, result.is_finished, result.attempts, result.args) == ("READY", False, 0, (3,))
    with pytest.raises(TaskUnfinishedError, match="has not ended: it is READY"):
        _ = result.return_value
    with connect() as connection:
        finish(connection, result.id, "2026-01-03T00:00:00Z")
    assert result.status == "READY"
    result.refresh()
    assert (result.status, result.attempts, result.is_finished) == ("SUCCESSFUL", 1, True)
    assert result.return_value == datetime(2026, 1, 3, tzinfo=UTC)
    assert result.enqueued_at is not None
    assert result.finished_at is not None
    assert client.get_result(result.id, app.later).return_value == datetime(2026, 1, 3, tzinfo=UTC)
    untyped = client.get_result(result.id)
    assert (untyped.return_value, untyped.args, untyped.task_path) == (
        "2026-01-03T00:00:00Z",
        (3,),
        app.later.module_path,
    )


def test_result_of_a_failed_task_raises(client: Client) -> None:
    """With the last error; `cancel` and `retry` answer in one word."""
    result = client.enqueue(app.send_welcome, 1)
    assert result.cancel() == "cancelled"
    result.refresh()
    assert result.errors[-1].kind == "cancelled"
    with pytest.raises(TaskFailedError, match="has failed: cancelled"):
        _ = result.return_value
    assert result.retry() == "retried"
    with pytest.raises(NoSuchTaskError, match="there is no task 4711"):
        client.get_result(4711)


def test_wait_returns_soon_after_the_end(client: Client, connect: Callable[[], psycopg.Connection]) -> None:
    """Each of several clients that wait for the same task; the best of five, since machines are busy."""
    delays = []
    for _ in range(5):
        result = client.enqueue(app.send_welcome, 1)
        with ThreadPoolExecutor() as threads, connect() as connection:
            waiting = [threads.submit(timed_wait, client, result.id) for _ in range(3)]
            wait_until(lambda: is_watched(connection, result.id), what="the task is watched")  # noqa: B023
            finish(connection, result.id, "welcome 1")
            connection.commit()
            ended = time.monotonic()
            values = [waiter.result(10) for waiter in waiting]
        assert {value for value, _ in values} == {"welcome 1"}
        delays.append(max(at for _, at in values) - ended)
    assert min(delays) < 0.05, delays


def timed_wait(client: Client, result_id: int) -> tuple[str, float]:
    value = client.get_result(result_id, app.send_welcome).wait(20)
    return value, time.monotonic()


def is_watched(connection: psycopg.Connection, result_id: int) -> bool:
    found = connection.execute("select notify_end from task_runs where result_id = %s", [result_id]).fetchone()
    connection.rollback()
    return found == (True,)


def test_wait_asks_the_database_rarely(client: Client) -> None:
    """Two looks in a second and a half: no busy loop."""
    result = client.enqueue(app.send_welcome, 1)
    with (
        mock.patch.object(Listening, "rows", autospec=True, side_effect=Listening.rows) as looks,
        pytest.raises(TaskUnfinishedError, match=r"did not end within 1\.5 s: it is READY"),
    ):
        result.wait(1.5)
    assert looks.call_count == 4  # the channel, at once, after a second, at the end


def test_wait_does_not_wait_for_a_held_row(client: Client, connect: Callable[[], psycopg.Connection]) -> None:
    """A producer that found a duplicate holds its row until it commits; the time of the client is its own."""
    result = client.enqueue(app.send_welcome, 1)
    with connect() as holder:
        holder.execute("select from task_runs where result_id = %s for share", [result.id])
        with pytest.raises(TaskUnfinishedError):
            result.wait(0.2)


def test_wait_finds_an_end_without_notification(client: Client, connect: Callable[[], psycopg.Connection]) -> None:
    """A notification may be lost: the next look finds the end."""
    result = client.enqueue(app.send_welcome, 1)
    with ThreadPoolExecutor() as threads, connect() as connection:
        waiting = threads.submit(result.wait, 20)
        wait_until(lambda: is_watched(connection, result.id), what="the task is watched")
        connection.execute("set reproq.notify = off")
        finish(connection, result.id, "found")
        connection.commit()
        assert waiting.result(15) == "found"


def test_wait_in_a_transaction_is_refused(database: Database, connect: Callable[[], psycopg.Connection]) -> None:
    """It would never see the end. A connection in autocommit mode waits, and listens to nothing afterwards."""
    with connect() as connection:
        result = Client(connection).enqueue(app.send_welcome, 1)
        with pytest.raises(ReproqError, match="Commit first, then wait through a client with a DSN or a pool"):
            result.wait(1)
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        result = Client(connection).enqueue(app.send_welcome, 1)
        with connection.transaction(), pytest.raises(ReproqError, match="Commit first"):
            result.wait(1)
        with pytest.raises(TaskUnfinishedError):
            result.wait(0.1)
        assert connection.execute("select count(*) from pg_listening_channels()").fetchone() == (0,)
        assert connection.autocommit


def test_wait_through_a_pool(database: Database, connect: Callable[[], psycopg.Connection]) -> None:
    """The pool gets its connection back as it was."""
    with ConnectionPool(database.dsn, min_size=1, max_size=1, open=True) as pool:
        client = Client(pool)
        result = client.enqueue(app.send_welcome, 1)
        ending = threading.Timer(0.2, lambda: finish_and_commit(connect(), result.id))
        ending.start()
        assert result.wait(20) == "pooled"
        ending.join()
        with pool.connection() as connection:
            assert not connection.autocommit


def finish_and_commit(connection: psycopg.Connection, result_id: int) -> None:
    finish(connection, result_id, "pooled")
    connection.commit()


def test_workflows_are_enqueued(client: Client, database: Database) -> None:
    """Chain, group and chord, with the options of each task; the last result is the one to wait for."""
    steps = client.enqueue(chain(app.send_welcome.call(1), app.untyped.call(2), app.later.call(3)))
    assert [row(database, member.id)["status"] for member in steps.members] == ["READY", "WAITING", "WAITING"]
    assert row(database, steps.members[0].id)["queue_name"] == "mail"
    assert steps.result.id == steps.members[-1].id
    assert {row(database, member.id)["workflow_id"] for member in steps.members} == {steps.workflow_id}
    side_by_side = client.enqueue(group(app.untyped.call(1), app.untyped.call(2)))
    assert [row(database, member.id)["status"] for member in side_by_side.members] == ["READY", "READY"]
    assert side_by_side.result is None
    joined = client.enqueue(chord([app.untyped.call(n) for n in range(3)], app.later.call(3)))
    assert [member.args for member in joined.members] == [(0,), (1,), (2,)]
    assert row(database, joined.result.id)["wait_count"] == 3
    at_once = client.enqueue(chord([], app.later.call(3)))
    assert (at_once.members, row(database, at_once.result.id)["status"]) == ([], "READY")


def test_workflows_refuse_what_sql_would(client: Client) -> None:
    """Before any SQL."""
    with pytest.raises(InvalidTaskError, match="leave unique_key and dedupe out"):
        chain(app.debounced.call("a", 1))
    with pytest.raises(InvalidTaskError, match="at least one"):
        group()
    with pytest.raises(InvalidTaskError, match=r"chain needs task.call\(...\)"):
        chain(app.send_welcome)  # type: ignore[arg-type]
