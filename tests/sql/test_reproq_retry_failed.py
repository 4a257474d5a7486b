"""reproq_retry_failed: all failed tasks, one answer each, never all or nothing."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import add, add_many, call, chain, chord, claim, fail_for_good, refused, statuses, update, value
from tests.support.database import Database


def answers(conn: psycopg.Connection, **arguments: object) -> list[tuple[int, str]]:
    return [tuple(row) for row in call(conn, "reproq_retry_failed", **arguments)]


def test_retry_failed_each_gets_its_answer_and_stops_no_other(conn: psycopg.Connection) -> None:
    """Two that share a spec, one with an active duplicate, a step behind a failed one: the rest goes through."""
    duplicate = uuid.uuid4().hex
    first, second = add(conn, status="FAILED", spec_hash=duplicate), add(conn, status="FAILED", spec_hash=duplicate)
    busy = uuid.uuid4().hex
    add(conn, spec_hash=busy, queue_name="other")
    third = add(conn, status="FAILED", spec_hash=busy)
    step, behind = chain(conn, 2, queue_name="chain")
    fail_for_good(conn, *claim(conn, 1, queues=["chain"]))
    last = add(conn, status="FAILED")
    assert answers(conn) == [
        (first, "retried"),
        (second, "already_active"),
        (third, "already_active"),
        (step, "retried"),
        (behind, "waiting"),
        (last, "retried"),
    ]
    assert statuses(conn, [behind]) == ["WAITING"]


def test_by_queue_and_path(conn: psycopg.Connection) -> None:
    """Only failed ones of the queue and path that are named; null means any."""
    for queue, path in (("a", "app.x"), ("a", "app.y"), ("b", "app.x")):
        add(conn, status="FAILED", queue_name=queue, task_path=path)
        add(conn, status="SUCCESSFUL", queue_name=queue, task_path=path)
    assert len(answers(conn, queue_name="a", task_path="app.x")) == 1
    assert answers(conn, queue_name="a", task_path="nope") == []
    assert len(answers(conn, task_path="app.x")) == 1  # the first is READY again
    assert len(answers(conn)) == 1


def test_retry_failed_cancelled_and_expired_tasks_only_when_named(conn: psycopg.Connection) -> None:
    """Their kind is that of the last error; a task without one, or with a history that is no array, has failed."""
    kinds = ("app_error", "cancelled", "expired", "timeout")
    ids = {
        kind: add(conn, status="FAILED", errors_json=Jsonb([{"kind": "cancelled"}, {"kind": kind}])) for kind in kinds
    }
    unusual: tuple[object, ...] = ([], {"kind": "cancelled"})
    odd = [add(conn, status="FAILED", errors_json=Jsonb(errors)) for errors in unusual]
    assert answers(conn, kinds=["timeout", "cancelled"]) == [
        (ids[kind], "retried") for kind in ("cancelled", "timeout")
    ]
    assert answers(conn) == [(result_id, "retried") for result_id in (ids["app_error"], *odd)]
    assert answers(conn, kinds=["expired"]) == [(ids["expired"], "retried")]


def test_page_by_page(conn: psycopg.Connection) -> None:
    """p_limit a call, after p_after_id: every failed task once, even when they fail again meanwhile."""
    ids = add_many(conn, 5, status="FAILED")
    seen: list[int] = []
    while page := answers(conn, limit=2, after_id=seen[-1] if seen else 0):
        seen += [result_id for result_id, _ in page]
        for result_id, _ in page:
            update(conn, result_id, status="FAILED")
    assert seen == ids


@pytest.mark.parametrize("limit", [0, -1])
def test_bad_limits_are_refused(conn: psycopg.Connection, limit: int) -> None:
    """RQ001."""
    assert refused(conn, "reproq_retry_failed", limit=limit).sqlstate == "RQ001"


def test_retry_failed_task_that_another_session_holds_is_busy(
    connect: Callable[[], psycopg.Connection], database: Database
) -> None:
    """It is answered busy, and the rest is retried."""
    ours, theirs = connect(), connect()
    held, free = add_many(ours, 2, status="FAILED")
    ours.commit()
    theirs.execute("select from task_runs where result_id = %s for update", [held])
    assert answers(ours) == [(held, "busy"), (free, "retried")]
    ours.commit()
    theirs.rollback()
    assert answers(ours) == [(held, "retried")]


def test_hundreds_in_one_subtransaction(conn: psycopg.Connection) -> None:
    """No subtransaction for each task: more than 64 in one transaction slow down every other session."""
    add_many(conn, 300, status="FAILED")
    assert {answer for _, answer in answers(conn)} == {"retried"}
    assert value(conn, "select count(distinct xmin::text) from task_runs") == 1


def test_retry_failed_chain_written_last_step_first(conn: psycopg.Connection) -> None:
    """The order of ids is not that of the steps: the one that failed of itself is retried, the other waits again."""
    last, first = add_many(conn, 2)
    update(conn, last, status="WAITING", parent_id=first)
    fail_for_good(conn, *claim(conn))
    assert answers(conn) == [(last, "waiting"), (first, "retried")]
    assert statuses(conn, [last]) == ["WAITING"]


def test_retry_failed_task_of_a_chord_that_another_session_holds_is_busy(
    connect: Callable[[], psycopg.Connection], database: Database
) -> None:
    """After two seconds the tasks of that chord are busy, the rest is retried: one held chord stops no other task."""
    ours, theirs = connect(), connect()
    _, [member], callback = chord(ours, 1)
    fail_for_good(ours, *claim(ours))
    free = add(ours, status="FAILED")
    ours.commit()
    theirs.execute("select from workflow_runs for update")
    assert answers(ours) == [(member, "busy"), (callback, "not_failed"), (free, "retried")]
    ours.commit()
    theirs.rollback()
    assert answers(ours) == [(member, "retried"), (callback, "waiting")]


def test_retry_failed_duplicate_that_is_not_committed_is_waited_for_and_then_busy(
    connect: Callable[[], psycopg.Connection], database: Database
) -> None:
    """Two seconds, as for reproq_retry, which then raises; the rest is retried."""
    ours, theirs = connect(), connect()
    specs = [uuid.uuid4().hex for _ in range(3)]
    ids = [add(ours, status="FAILED", spec_hash=spec) for spec in specs]
    ours.commit()
    add(theirs, spec_hash=specs[1])
    assert refused(ours, "reproq_retry", result_id=ids[1]).sqlstate == "55P03"
    assert answers(ours) == [(ids[0], "retried"), (ids[1], "busy"), (ids[2], "retried")]
    ours.commit()
    theirs.rollback()
    assert answers(ours) == [(ids[1], "retried")]
