"""reproq_step_save, reproq_steps_done: stored under the fence, read by later attempts, gone with the task."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import add, call, claim, claimed, complete, fail, refused, retry, rows, value
from tests.support.database import Clock


def save(conn: psycopg.Connection, got: Any, name: str, stored: object = None, token: Any = None) -> str:
    arguments = [got.result_id, token or got.lease_token, name, Jsonb(stored)]
    answer: str = value(conn, "select reproq_step_save(%s, %s, %s, %s)", arguments)
    return answer


def done(conn: psycopg.Connection, got: Any, **more: Any) -> Any:
    (page,) = call(conn, "reproq_steps_done", result_id=got.result_id, lease_token=got.lease_token, **more)
    return page


def test_steps_are_there_for_a_later_attempt(conn: psycopg.Connection, clock: Clock) -> None:
    """The first value stays; explain names them with their attempts."""
    got = claimed(conn)
    assert done(conn, got).steps == {}
    assert [save(conn, got, "b", [1]), save(conn, got, "a"), save(conn, got, "b", [2])] == ["ok", "ok", "already"]
    fail(conn, got)
    clock.advance(hours=1)
    (again,) = claim(conn, 1, queues=[got.queue_name])
    assert save(conn, again, "c", "x") == "ok"
    page = done(conn, again)
    assert (page.answer, page.steps, page.last_name) == ("ok", {"a": None, "b": [1], "c": "x"}, None)
    (row,) = [row for row in call(conn, "reproq_explain", result_id=got.result_id) if row.reason == "steps_done"]
    assert row.detail.startswith("3 steps are done: ")
    assert "c (attempt 2)" in row.detail


def test_steps_need_the_fence(conn: psycopg.Connection) -> None:
    """Another token, an attempt that has ended, no task: lost, and nothing is stored or read."""
    got, over = claimed(conn), claimed(conn)
    complete(conn, over)
    assert save(conn, got, "a", token=uuid.uuid4()) == "lost"
    assert save(conn, over, "a") == "lost"
    assert done(conn, got._replace(lease_token=uuid.uuid4())).answer == "lost"
    assert done(conn, over).answer == "lost"
    assert rows(conn, "select from reproq_steps") == []


def test_steps_come_in_pages(conn: psycopg.Connection) -> None:
    """At least one a page, each once."""
    got = claimed(conn)
    for number in range(10):
        save(conn, got, f"step {number}", "x" * 100)
    found: dict[str, Any] = {}
    after, pages = "", 0
    while after is not None:
        page = done(conn, got, after=after, max_bytes=250)
        found |= page.steps
        after = page.last_name
        pages += 1
    assert (len(found), pages) == (10, 5)


@pytest.mark.parametrize(("name", "stored"), [("", 1), ("x" * 256, 1), (None, 1), ("large", "x" * (1 << 20))])
def test_steps_have_limits(conn: psycopg.Connection, name: str | None, stored: object) -> None:
    got = claimed(conn)
    error = refused(
        conn,
        "reproq_step_save",
        result_id=got.result_id,
        lease_token=got.lease_token,
        name=name,
        value=Jsonb(stored),
    )
    assert error.sqlstate == "RQ001"


def test_steps_stay_over_a_retry_and_go_with_the_task(conn: psycopg.Connection) -> None:
    """Deleted with it, one by one or by TRUNCATE."""
    got, other = claimed(conn), claimed(conn)
    save(conn, got, "a")
    save(conn, other, "a")
    fail(conn, got, retryable=False)
    assert retry(conn, got.result_id) == "retried"
    assert value(conn, "select count(*) from reproq_steps") == 2
    conn.execute("delete from task_runs where result_id = %s", [got.result_id])
    assert [row.result_id for row in rows(conn, "select result_id from reproq_steps")] == [other.result_id]
    conn.execute("truncate task_runs")
    assert rows(conn, "select from reproq_steps") == []


def complete_one(conn: psycopg.Connection, got: Any, returns: object = None, tasks: object = None) -> str:
    arguments = [got.result_id, got.lease_token, Jsonb(returns), None if tasks is None else Jsonb(tasks)]
    answer: str = value(conn, "select reproq_complete_one(%s, %s, %s, %s)", arguments)
    return answer


def test_complete_one_ends_the_attempt_and_enqueues(conn: psycopg.Connection) -> None:
    """Its result and what follows; a second call, a failure and a release leave the success as it is."""
    got = claimed(conn)
    follow = [{"task_path": "app.tasks.next", "args": [1]}, {"task_path": "app.tasks.next", "args": [2]}]
    assert complete_one(conn, got, {"a": 1}, follow) == "ok"
    assert complete_one(conn, got, {"a": 2}, follow) == "already"
    assert [row.answer for row in fail(conn, got, error={"kind": "completion_lost"})] == ["succeeded"]
    (row,) = rows(conn, "select status, return_json from task_runs where result_id = %s", [got.result_id])
    assert (row.status, row.return_json) == ("SUCCESSFUL", {"a": 1})
    assert value(conn, "select count(*) from task_runs where task_path = 'app.tasks.next'") == 2


def test_complete_one_needs_the_fence(conn: psycopg.Connection) -> None:
    got = claimed(conn)
    assert complete_one(conn, got._replace(lease_token=uuid.uuid4()), tasks=[{"task_path": "a.b"}]) == "lost"
    assert value(conn, "select count(*) from task_runs where task_path = 'a.b'") == 0


def test_completion_that_the_database_has_lost_is_a_failure(conn: psycopg.Connection) -> None:
    """The attempt reports it, and is RUNNING: its effects are lost with it, so it runs again."""
    got = claimed(conn)
    assert [row.answer for row in fail(conn, got, error={"kind": "completion_lost"})] == ["retry"]


def test_complete_and_enqueue_in_one_batch(conn: psycopg.Connection) -> None:
    """Tasks of those that are ok only; a bad one stops the call, and nothing is done."""
    got, none, over = (claimed(conn) for _ in range(3))
    complete(conn, over)
    arguments: dict[str, Any] = {
        "result_ids": [got.result_id, none.result_id, over.result_id],
        "lease_tokens": [got.lease_token, none.lease_token, over.lease_token],
        "returns": [Jsonb(1), Jsonb(2), Jsonb(3)],
    }
    bad = [Jsonb([{"task_path": "a.b"}]), None, Jsonb([{"task_path": ""}])]
    assert refused(conn, "reproq_complete_and_enqueue", **arguments, tasks=bad).sqlstate == "RQ002"
    good = [Jsonb([{"task_path": "a.b"}]), None, Jsonb([{"task_path": "a.c"}])]
    answers = call(conn, "reproq_complete_and_enqueue", **arguments, tasks=good)
    assert [row.answer for row in answers] == ["ok", "ok", "already"]
    paths = rows(conn, "select task_path from task_runs where task_path like 'a.%'")
    assert [row.task_path for row in paths] == ["a.b"]


def test_waiting_task_has_no_step(conn: psycopg.Connection) -> None:
    """Null is no fence."""
    waiting = add(conn)
    assert value(conn, "select reproq_step_save(%s, null, 'a', '1')", [waiting]) == "lost"
