"""reproq_cancel: every state has its answer."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests.sql.calls import (
    add,
    add_many,
    cancel,
    chain,
    chord,
    claim,
    claimed,
    claimed_ids,
    complete,
    kind,
    last_error,
    next_wake,
    statuses,
    task,
    workflow,
)
from tests.support.database import Clock


@pytest.mark.parametrize("status", ["READY", "WAITING"])
def test_cancel_what_has_not_started_never_will(conn: psycopg.Connection, clock: Clock, status: str) -> None:
    """cancelled: FAILED of that kind at once, uncharged; neither claim nor wake sees it again."""
    result_id = add(conn, status=status)
    clock.advance(seconds=1)
    assert cancel(conn, result_id) == "cancelled"
    row = task(conn, result_id)
    assert (row.status, row.attempts, row.finished_at, row.failed_at) == ("FAILED", 0, clock.now, clock.now)
    assert last_error(conn, result_id)["kind"] == "cancelled"
    assert row.last_error.startswith("cancelled: ")
    assert claim(conn) == []
    assert next_wake(conn) is None
    assert cancel(conn, result_id) == "terminal"


def test_future_and_blocked_tasks_are_cancelled_at_once(conn: psycopg.Connection, clock: Clock) -> None:
    """Also where no claim looks; a blocked one unblocks only the right one."""
    holder = claimed(conn, lock_key="k")
    future = add(conn, run_after=clock.now + timedelta(days=1))
    first, second = add_many(conn, 2, lock_key="k")
    claim(conn)
    assert task(conn, first).blocked_on == "l:k"
    assert [cancel(conn, future), cancel(conn, first)] == ["cancelled", "cancelled"]
    assert task(conn, first).blocked_on == ""
    assert claim(conn) == []
    complete(conn, holder)
    assert claimed_ids(conn) == [second]


def test_cancel_cancelled_head_leaves_the_key_to_the_next(conn: psycopg.Connection) -> None:
    """The unblocked task of a free key is cancelled before its claim: the next blocked one comes (a lost wake)."""
    holder = claimed(conn, lock_key="k")
    first, second = add_many(conn, 2, lock_key="k")
    claim(conn)
    complete(conn, holder)
    assert (task(conn, first).blocked_on, task(conn, second).blocked_on) == ("", "l:k")
    cancel(conn, first)
    assert task(conn, second).blocked_on == ""


def test_cancel_running_task_is_asked_to_stop(conn: psycopg.Connection) -> None:
    """requested, as often as asked; the lease goes on."""
    got = claimed(conn)
    assert [cancel(conn, got.result_id), cancel(conn, got.result_id)] == ["requested", "requested"]
    row = task(conn, got.result_id)
    assert (row.status, row.cancel_requested, row.lease_token) == ("RUNNING", True, got.lease_token)


@pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "CANCELLED"])
def test_cancel_final_task_stays_as_it_is(conn: psycopg.Connection, status: str) -> None:
    """terminal; a success that came first stays a success."""
    result_id = add(conn, status=status)
    before = task(conn, result_id)
    assert cancel(conn, result_id) == "terminal"
    assert task(conn, result_id) == before


@pytest.mark.parametrize("result_id", [0, -1, 2**63 - 1, None])
def test_cancel_no_such_task_is_missing(conn: psycopg.Connection, result_id: int | None) -> None:
    """An answer, not an error."""
    assert cancel(conn, result_id) == "missing"


def test_cancel_what_waits_for_a_cancelled_task_ends_with_it(conn: psycopg.Connection) -> None:
    """A chain from any step on; a chord from a member or from its callback."""
    first, second, third, fourth = chain(conn, 4)
    assert cancel(conn, third) == "cancelled"
    assert statuses(conn, [first, second]) == ["READY", "WAITING"]
    assert [kind(conn, third), kind(conn, fourth)] == ["cancelled", "parent_failed"]

    workflow_id, members, callback = chord(conn, 2)
    assert cancel(conn, members[0]) == "cancelled"
    assert [kind(conn, callback), task(conn, members[1]).status] == ["workflow_failed", "READY"]
    assert workflow(conn, workflow_id).status == "FAILED"

    workflow_id, members, callback = chord(conn, 2)
    assert cancel(conn, callback) == "cancelled"
    assert workflow(conn, workflow_id).status == "FAILED"
    for got in claim(conn):
        complete(conn, got)
    assert (kind(conn, callback), workflow(conn, workflow_id).status) == ("cancelled", "FAILED")
