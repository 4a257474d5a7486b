"""reproq_reclaim: expired leases, overdue tasks, and what was left behind."""

from __future__ import annotations

import uuid
from datetime import timedelta

import psycopg
import pytest

from tests.sql.calls import (
    add,
    add_many,
    call,
    cancel,
    chain,
    chord,
    claim,
    claimed,
    claimed_ids,
    heartbeat,
    kind,
    last_error,
    reclaim,
    refused,
    rows,
    statuses,
    task,
    update,
    workflow,
)
from tests.support.database import Clock


def test_reclaim_expired_lease_goes_back_after_its_backoff(conn: psycopg.Connection, clock: Clock) -> None:
    """ready: the attempt stays charged, lost_count grows, the loss is on record."""
    got = claimed(conn)
    clock.advance(seconds=60)
    assert reclaim(conn) == {}  # the lease ends now, it has not ended
    clock.advance(seconds=0.001)
    assert reclaim(conn) == {got.result_id: "ready"}
    row = task(conn, got.result_id)
    assert (row.status, row.attempts, row.lost_count, row.last_answer) == ("READY", 1, 1, "lost")
    assert (row.lease_token, row.leased_until, row.leased_by) == (None, None, None)
    assert timedelta(seconds=30) <= row.run_after - clock.now <= timedelta(seconds=33)
    entry = last_error(conn, got.result_id)
    assert (entry["kind"], entry["attempt"], entry["worker_id"]) == ("lease_expiry", 1, "w1")
    assert reclaim(conn) == {}


def test_from_the_second_loss_on_the_backoff_is_four_times_as_long(conn: psycopg.Connection, clock: Clock) -> None:
    """A crasher does not take its neighbours with it again at once."""
    got = claimed(conn, max_attempts=5)
    waits = []
    for _ in range(3):
        clock.advance(minutes=2)
        reclaim(conn)
        wait = task(conn, got.result_id).run_after - clock.now
        waits.append(wait.total_seconds())
        clock.advance(hours=2)
        (got,) = claim(conn, 1, queues=[got.queue_name])
    for wait_seconds, low in zip(waits, (30, 4 * 60, 4 * 120), strict=True):
        assert low <= wait_seconds <= low * 1.1


def test_reclaim_last_attempt_ends_with_its_lease(conn: psycopg.Connection, clock: Clock) -> None:
    """failed, kind lease_expiry: a task of one attempt never runs twice on our initiative; dependents go too."""
    workflow_id, (member,), callback = chord(conn, 1, queue_name="q", max_attempts=1)
    claim(conn, queues=["q"])
    clock.advance(minutes=2)
    assert reclaim(conn)[member] == "failed"
    assert (kind(conn, member), kind(conn, callback)) == ("lease_expiry", "workflow_failed")
    assert workflow(conn, workflow_id).status == "FAILED"
    assert task(conn, member).finished_at == clock.now


def test_reclaim_cancelled_task_whose_worker_died_is_not_run_again(conn: psycopg.Connection, clock: Clock) -> None:
    """Failed, kind cancelled, attempts or not."""
    got = claimed(conn, max_attempts=9)
    cancel(conn, got.result_id)
    clock.advance(minutes=2)
    assert call(conn, "reproq_reclaim") == [(got.result_id, "failed")]  # at once, not READY in between
    assert kind(conn, got.result_id) == "cancelled"


def test_reclaim_renewed_lease_is_left_alone(conn: psycopg.Connection, clock: Clock) -> None:
    """Reclaim takes nothing from the living."""
    got = claimed(conn)
    clock.advance(seconds=59)
    heartbeat(conn, got)
    clock.advance(seconds=59)
    assert reclaim(conn) == {}


def test_reclaim_limit_bounds_each_part(conn: psycopg.Connection, clock: Clock) -> None:
    """The leases that ended first come first; later calls do the rest."""
    add_many(conn, 5)
    got = [claim(conn, 1, lease=timedelta(seconds=n + 1))[0].result_id for n in range(5)]
    clock.advance(minutes=1)
    assert reclaim(conn, 2) == {got[0]: "ready", got[1]: "ready"}
    assert len(reclaim(conn, 2)) == 2
    assert len(reclaim(conn, 2)) == 1


@pytest.mark.parametrize("status", ["READY", "WAITING"])
def test_overdue_tasks_end(conn: psycopg.Connection, clock: Clock, status: str) -> None:
    """Past expires_at, or cancelled by a direct write: FAILED of that kind; blocked, future and throttled ones too."""
    overdue = add(conn, status=status, expires_at=clock.now)
    asked = add(conn, status=status, run_after=clock.now + timedelta(days=1))
    update(conn, asked, cancel_requested=True)
    fine = add(conn, status=status, expires_at=clock.now + timedelta(seconds=1))
    assert reclaim(conn) == {overdue: "failed", asked: "failed"}
    assert [kind(conn, t) for t in (overdue, asked, fine)] == ["expired", "cancelled", None]


def test_reclaim_blocked_task_expires(conn: psycopg.Connection, clock: Clock) -> None:
    """No claim reads a blocked task, but its end comes."""
    claimed(conn, lock_key="k")
    blocked = add(conn, lock_key="k", expires_at=clock.now + timedelta(seconds=5))
    claim(conn)
    assert task(conn, blocked).blocked_on == "l:k"
    clock.advance(seconds=5)
    assert reclaim(conn) == {blocked: "failed"}


def add_left_behind(conn: psycopg.Connection, parent: str) -> int:
    """A step whose predecessor has ended without seeing it, as happens when both are written at the same time."""
    first = add(conn)
    step = add(conn, status="WAITING", parent_id=first)
    conn.execute("set local session_replication_role = replica")
    update(conn, first, status=parent, finished_at="2020-01-01")
    conn.execute("set local session_replication_role = origin")
    return step


@pytest.mark.parametrize(
    ("parent", "expected", "answer"),
    [("SUCCESSFUL", "READY", "ready"), ("FAILED", "FAILED", "failed"), ("CANCELLED", "FAILED", "failed")],
)
def test_reclaim_step_that_arrived_while_its_predecessor_ended_moves(
    conn: psycopg.Connection, parent: str, expected: str, answer: str
) -> None:
    """Rows of a chain arrive one by one; nothing waits for ever."""
    step = add_left_behind(conn, parent)
    behind = add(conn, status="WAITING", parent_id=step)
    assert reclaim(conn)[step] == answer
    assert statuses(conn, [step, behind]) == [expected, "WAITING" if expected == "READY" else "FAILED"]


def test_reclaim_step_left_behind_is_found_among_many_that_wait(conn: psycopg.Connection) -> None:
    """Wherever in the ids of all tasks the waiting ones lie: each is as likely to be looked at as any other."""
    conn.execute("select setval(pg_get_serial_sequence('task_runs', 'result_id'), 10000000)")
    for _ in range(30):
        chain(conn, 2)
    step = add_left_behind(conn, "SUCCESSFUL")
    assert any(reclaim(conn, limit=1) == {step: "ready"} for _ in range(100))


@pytest.mark.parametrize(
    ("member", "expected"), [("SUCCESSFUL", "READY"), ("FAILED", "FAILED"), ("CANCELLED", "FAILED")]
)
def test_reclaim_chord_that_arrived_after_its_members_ended_moves(
    conn: psycopg.Connection, member: str, expected: str
) -> None:
    """Members done before the workflow row exists."""
    workflow_id = uuid.uuid4()
    add_many(conn, 2, workflow_id=workflow_id, status=member)
    callback = add(conn, workflow_id=workflow_id, status="WAITING", wait_count=2)
    assert reclaim(conn) == {}  # the workflow row may be on its way
    conn.execute(
        "insert into workflow_runs (workflow_id, expected_count, callback_result_id) values (%s, 2, %s)",
        [workflow_id, callback],
    )
    assert reclaim(conn) == {callback: {"READY": "ready", "FAILED": "failed"}[expected]}
    assert task(conn, callback).status == expected
    assert workflow(conn, workflow_id).status == {"READY": "WAITING_CALLBACK", "FAILED": "FAILED"}[expected]


def test_reclaim_chord_whose_members_are_not_all_there_yet_waits(conn: psycopg.Connection) -> None:
    """One of two expected members is done, the other not inserted: nothing moves, whatever reclaim looks at."""
    workflow_id, (member,), callback = chord(conn, 1)
    conn.execute("update workflow_runs set expected_count = 2")
    update(conn, member, status="SUCCESSFUL")
    assert reclaim(conn) == {}
    assert (task(conn, callback).status, workflow(conn, workflow_id).status) == ("WAITING", "RUNNING")
    update(conn, add(conn, workflow_id=workflow_id), status="SUCCESSFUL")
    assert task(conn, callback).status == "READY"


def test_reclaim_step_whose_predecessor_was_deleted_ends_after_a_minute(conn: psycopg.Connection, clock: Clock) -> None:
    """An orphan does not wait for ever, and what is behind it goes with it."""
    first, second, third = chain(conn, 3)
    conn.execute("delete from task_runs where result_id = %s", [first])
    assert reclaim(conn) == {}  # the rest of a workflow may just be on its way
    clock.advance(seconds=61)
    assert reclaim(conn) == {second: "failed"}
    assert [kind(conn, t) for t in (second, third)] == ["parent_failed", "parent_failed"]


def test_reclaim_callback_without_its_workflow_row_ends_after_a_minute(conn: psycopg.Connection, clock: Clock) -> None:
    """Its members could never start it."""
    callback = add(conn, status="WAITING", workflow_id=uuid.uuid4(), wait_count=2)
    clock.advance(seconds=61)
    assert reclaim(conn) == {callback: "failed"}


@pytest.mark.parametrize("how", ["holder deleted without triggers", "keys changed"])
def test_tasks_blocked_on_free_keys_come_back(conn: psycopg.Connection, how: str) -> None:
    """The last net: whatever went past all others is found by reclaim, or by a claim that came back empty."""
    holder = claimed(conn, lock_key="k")
    blocked = add(conn, lock_key="k")
    claim(conn)
    conn.execute("set local session_replication_role = replica")
    if how == "keys changed":
        update(conn, holder.result_id, lock_key="other")
    else:
        conn.execute("delete from task_runs where result_id = %s", [holder.result_id])
    conn.execute("set local session_replication_role = origin")
    with conn.transaction(force_rollback=True):
        reclaim(conn)
        assert task(conn, blocked).blocked_on == ""
    assert claimed_ids(conn) == [blocked]


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_reclaim_bad_limit_is_refused(conn: psycopg.Connection, limit: int | None) -> None:
    """RQ001."""
    assert refused(conn, "reproq_reclaim", limit=limit).sqlstate == "RQ001"


def test_reclaim_largest_limit_works(conn: psycopg.Connection, clock: Clock) -> None:
    """2^31-1."""
    got = claimed(conn)
    clock.advance(minutes=2)
    assert reclaim(conn, 2**31 - 1) == {got.result_id: "ready"}


def test_workers_not_seen_for_a_week_leave_the_registry(conn: psycopg.Connection, clock: Clock) -> None:
    """At most p_limit a call; never one that holds a lease, never one seen since."""
    for number in range(3):
        conn.execute("select reproq_register_worker(%s, 'host', 1, '{default}')", [f"dead-{number}"])
    conn.execute("select reproq_register_worker('holder', 'host', 1, '{default}')")
    add(conn)
    claim(conn, worker="holder", lease=timedelta(days=20))
    clock.advance(days=7)
    conn.execute("select reproq_register_worker('alive', 'host', 1, '{default}')")

    def registered() -> set[str]:
        return {row.worker_id for row in rows(conn, "select worker_id from reproq_workers")}

    reclaim(conn)
    assert len(registered()) == 5
    clock.advance(seconds=1)
    reclaim(conn, limit=2)
    assert len(registered()) >= 3
    reclaim(conn)
    assert registered() == {"holder", "alive"}
