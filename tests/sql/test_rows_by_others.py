"""Rows that Django, its commands, a DBA or an old producer write past the functions: made to fit, or refused."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    MINUTE,
    add,
    add_many,
    chain,
    claim,
    claimed,
    claimed_ids,
    complete,
    fail,
    heartbeat,
    kind,
    reclaim,
    statuses,
    task,
    update,
)
from tests.support.database import Clock


def test_running_without_a_lease_gets_one(conn: psycopg.Connection, clock: Clock) -> None:
    """A token and five minutes, by insert and by update; reclaim finds it like any other."""
    inserted = add(conn, status="RUNNING", attempts=1)
    updated = add(conn)
    update(conn, updated, status="RUNNING", attempts=1)
    for result_id in (inserted, updated):
        row = task(conn, result_id)
        assert (row.status, row.leased_until) == ("RUNNING", clock.now + timedelta(minutes=5))
        assert row.lease_token is not None
    clock.advance(minutes=6)
    assert reclaim(conn) == {inserted: "ready", updated: "ready"}


def test_foreign_rows_lease_that_is_given_is_kept(conn: psycopg.Connection, clock: Clock) -> None:
    """leased_by and leased_until of another program are its own."""
    until = clock.now + timedelta(seconds=7)
    row = task(conn, add(conn, status="RUNNING", leased_by="go-1", leased_until=until))
    assert (row.leased_by, row.leased_until) == ("go-1", until)


def test_foreign_rows_host_whose_clock_is_ahead_delays_nothing(conn: psycopg.Connection, clock: Clock) -> None:
    """What counts is the database's clock: a task without run_after is due when it is inserted."""
    ahead = add(conn, enqueued_at=clock.now + timedelta(minutes=2))
    assert task(conn, ahead).enqueued_at == clock.now
    assert claimed_ids(conn) == [ahead]


@pytest.mark.parametrize(("hours", "workflow_row"), [(-1, True), (-1, False), (1, False)])
def test_rows_of_a_workflow_have_a_minute_by_our_clock(
    conn: psycopg.Connection, clock: Clock, hours: int, workflow_row: bool
) -> None:
    """A chord arrives row by row from a host whose clock is wrong: its callback waits a minute for the rest."""
    wrong, workflow_id = clock.now + timedelta(hours=hours), uuid.uuid4()
    callback = add(conn, status="WAITING", workflow_id=workflow_id, wait_count=1, enqueued_at=wrong, updated_at=wrong)
    if workflow_row:
        conn.execute(
            "insert into workflow_runs (workflow_id, expected_count, callback_result_id, updated_at)"
            " values (%s, 1, %s, %s)",
            [workflow_id, callback, wrong],
        )
    assert reclaim(conn) == {}
    clock.advance(seconds=61)
    assert reclaim(conn) == {callback: "failed"}


def test_foreign_rows_new_holder_gets_a_new_token(conn: psycopg.Connection) -> None:
    """A running task that another program takes over is lost to the first one."""
    got = claimed(conn)
    update(conn, got.result_id, leased_by="go-1")
    row = task(conn, got.result_id)
    assert row.lease_token not in (None, got.lease_token)
    assert complete(conn, got) == ["lost"]
    assert heartbeat(conn, got) == {got.result_id: "lost"}


@pytest.mark.parametrize("status", ["READY", "WAITING", "SUCCESSFUL", "FAILED", "CANCELLED"])
def test_leaving_running_clears_the_lease(conn: psycopg.Connection, status: str) -> None:
    """Whatever columns the writer left behind; the old attempt is lost."""
    got = claimed(conn, concurrency_key="c", concurrency_limit=2)
    update(conn, got.result_id, status=status)
    row = task(conn, got.result_id)
    assert row.status == status
    assert (row.lease_token, row.leased_until, row.leased_by, row.concurrency_slot) == (None, None, None, None)
    assert (row.finished_at is not None) == (status in ("SUCCESSFUL", "FAILED", "CANCELLED"))
    assert complete(conn, got) == ["lost"]


@pytest.mark.parametrize("status", ["READY", "WAITING", "FAILED"])
def test_foreign_rows_row_inserted_with_a_lease_it_cannot_have_loses_it(
    conn: psycopg.Connection, clock: Clock, status: str
) -> None:
    """Old rows copied back: no lease unless RUNNING."""
    result_id = add(
        conn,
        status=status,
        leased_by="w",
        leased_until=clock.now,
        lease_token=uuid.uuid4(),
        concurrency_slot=3,
        blocked_on="l:x",
    )
    row = task(conn, result_id)
    assert (row.lease_token, row.leased_until, row.concurrency_slot, row.blocked_on) == (None, None, None, "")


def test_djangos_retry_leaves_the_end_behind(conn: psycopg.Connection) -> None:
    """status READY with finished_at, failed_at and used-up attempts: cleared, and it starts afresh."""
    got = claimed(conn, max_attempts=1)
    fail(conn, got)
    update(conn, got.result_id, status="READY", run_after=None)
    row = task(conn, got.result_id)
    assert (row.status, row.finished_at, row.failed_at, row.attempts) == ("READY", None, None, 0)
    (again,) = claim(conn, queues=[got.queue_name])
    assert (again.result_id, again.attempts) == (got.result_id, 1)


@pytest.mark.parametrize("columns", [{}, {"finished_at": None, "failed_at": None}])
@pytest.mark.parametrize("expired_or_cancelled", ["cancel_requested", "expires_at"])
def test_djangos_retry_of_what_was_cancelled_or_expired_runs(
    conn: psycopg.Connection, clock: Clock, expired_or_cancelled: str, columns: dict[str, Any]
) -> None:
    """The request and the time that ended it are over, as after reproq_retry; a later time is kept."""
    late = clock.now + timedelta(hours=1)
    result_id, other = (
        add(conn, **{expired_or_cancelled: True if expired_or_cancelled == "cancel_requested" else clock.now}),
        add(conn),
    )
    assert claimed_ids(conn) == [other]
    update(conn, result_id, status="READY", **columns)
    row = task(conn, result_id)
    assert (row.status, row.cancel_requested, row.expires_at) == ("READY", False, None)
    assert claimed_ids(conn) == [result_id]
    failed = add(conn, status="FAILED", expires_at=late)
    update(conn, failed, status="READY", **columns)
    assert task(conn, failed).expires_at == late


def test_djangos_retry_brings_the_steps_behind_it_back(conn: psycopg.Connection) -> None:
    """A direct FAILED -> READY is a retry, with all that follows from it."""
    steps = chain(conn)
    (got,) = claim(conn)
    fail(conn, got, retryable=False)
    update(conn, steps[0], status="READY", attempts=0, run_after=None)
    assert statuses(conn, steps) == ["READY", "WAITING", "WAITING"]


def test_djangos_reclaim_gives_the_task_to_the_next_claim(conn: psycopg.Connection, clock: Clock) -> None:
    """Its `reclaim` command: READY, lease columns of its model cleared, our token left behind."""
    got = claimed(conn, lock_key="k")
    waiting = add(conn, lock_key="k", queue_name=got.queue_name)
    claim(conn, queues=[got.queue_name])
    clock.advance(minutes=2)
    conn.execute(
        "update task_runs set status = 'READY', leased_until = null, leased_by = null, run_after = %s"
        " where status = 'RUNNING' and leased_until < %s",
        [clock.now, clock.now],
    )
    row = task(conn, got.result_id)
    assert (row.status, row.lease_token, row.attempts) == ("READY", None, 1)
    assert complete(conn, got) == ["lost"]
    assert claimed_ids(conn, queues=[got.queue_name]) == [waiting]


@pytest.mark.parametrize("old", ["READY", "WAITING", "RUNNING"])
@pytest.mark.parametrize("new", ["SUCCESSFUL", "FAILED", "CANCELLED"])
def test_foreign_rows_final_state_written_by_hand_is_final(
    conn: psycopg.Connection, clock: Clock, old: str, new: str
) -> None:
    """It gets an end, dependents follow, no worker runs it; finished_at that is given is kept."""
    result_id = add(conn, status=old)
    step = add(conn, status="WAITING", parent_id=result_id)
    update(conn, result_id, status=new)
    row = task(conn, result_id)
    assert (row.status, row.finished_at) == (new, clock.now)
    assert (row.failed_at is not None) == (new == "FAILED")
    assert task(conn, step).status == ("READY" if new == "SUCCESSFUL" else "FAILED")
    given = add(conn, status=new, finished_at=clock.now - MINUTE)
    assert task(conn, given).finished_at == clock.now - MINUTE


def test_cancelled_lets_the_key_go(conn: psycopg.Connection) -> None:
    """A running task of a key that Django's admin cancels makes room."""
    first, second = add_many(conn, 2, lock_key="k")
    claim(conn)
    update(conn, first, status="CANCELLED")
    assert claimed_ids(conn) == [second]


@pytest.mark.parametrize("errors_json", [{}, "text", 5, None, [], [1, "x"]])
def test_foreign_rows_history_that_is_no_array_cannot_stop_a_failure(
    conn: psycopg.Connection, errors_json: Any
) -> None:
    """What is no array counts as empty; what is one is appended to."""
    got = claimed(conn, max_attempts=1, errors_json=errors_json, worker_ids=errors_json)
    assert [row.answer for row in fail(conn, got)] == ["failed"]
    row = task(conn, got.result_id)
    kept = errors_json if isinstance(errors_json, list) else []
    assert row.errors_json[:-1] == kept
    assert row.errors_json[-1]["kind"] == "app_error"
    assert row.worker_ids == [*kept, "w1"]


def test_attempts_past_the_maximum_start_afresh(conn: psycopg.Connection) -> None:
    """attempts >= max_attempts on a READY row, inserted or written back: counted from zero again."""
    result_id = add(conn, attempts=7, max_attempts=3)
    assert task(conn, result_id).attempts == 0
    (got,) = claim(conn)
    update(conn, result_id, status="READY", attempts=9)
    assert task(conn, result_id).attempts == 0
    assert complete(conn, got) == ["lost"]


@pytest.mark.parametrize("wait_count", [-5, 0, 99])
def test_wait_count_is_only_a_number(conn: psycopg.Connection, wait_count: int) -> None:
    """The truth is recomputed from rows, so a wrong wait_count neither starts nor blocks a step."""
    first, second = chain(conn, 2)
    update(conn, second, wait_count=wait_count)
    assert claimed_ids(conn) == [first]
    update(conn, first, status="SUCCESSFUL")
    assert claimed_ids(conn) == [second]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"status": "BOGUS"}, "no status 'BOGUS'"),
        ({"status": "ready"}, "no status 'ready'"),
        ({"run_after": "infinity"}, "run_after"),
        ({"run_after": "-infinity"}, "run_after"),
        ({"run_after": "294276-01-01 00:00+00"}, "run_after"),
        ({"enqueued_at": "-infinity"}, "enqueued_at"),
        ({"expires_at": "infinity"}, "expires_at"),
        ({"status": "RUNNING", "leased_until": "infinity"}, "leased_until"),
        ({"status": "FAILED", "failed_at": "infinity"}, "failed_at"),
        ({"status": "FAILED", "finished_at": "-infinity"}, "finished_at"),
        ({"started_at": "infinity"}, "started_at"),
        ({"queue_name": "q" * 513}, "queue_name"),
        ({"spec_json": {"task_path": "a." + "b" * 1100}}, "task_path"),
    ],
)
def test_foreign_row_that_must_not_be_is_refused(
    conn: psycopg.Connection, columns: dict[str, Any], problem: str
) -> None:
    """Illegal rows fail at the insert, and at the update, with a message that names the column."""
    with pytest.raises(errors.CheckViolation, match=problem), conn.transaction():
        add(conn, **columns)
    if "spec_json" not in columns:
        result_id = add(conn)
        with pytest.raises(errors.CheckViolation, match=problem), conn.transaction():
            update(conn, result_id, **columns)


@pytest.mark.parametrize(
    ("columns", "sqlstate"),
    [
        ({"spec_json": {"task_path": "a.b"}, "task_path": "os.system"}, "RQ002"),  # checked = executed
        ({"spec_json": {"args": []}, "task_path": "a.b"}, "RQ002"),
        ({"spec_json": Jsonb([1]), "task_path": "a.b"}, "RQ002"),
        ({"spec_json": Jsonb("a.b")}, "RQ002"),
        ({"spec_json": Jsonb(None)}, "RQ002"),
        ({"spec_json": {"args": []}}, "23514"),
        ({"spec_json": {"task_path": ""}}, "23514"),
        ({"spec_json": {"task_path": None}}, "23514"),
    ],
)
def test_foreign_rows_path_that_the_spec_does_not_name_is_refused(
    conn: psycopg.Connection, columns: dict[str, Any], sqlstate: str
) -> None:
    """What is checked must be what is executed: by insert and by update of either column."""
    with pytest.raises(psycopg.DatabaseError) as caught, conn.transaction():
        add(conn, **columns)
    assert caught.value.sqlstate == sqlstate


@pytest.mark.parametrize("change", [{"task_path": "os.system"}, {"spec_json": Jsonb({"task_path": "os.system"})}])
def test_foreign_rows_path_cannot_be_changed_without_its_spec(conn: psycopg.Connection, change: dict[str, Any]) -> None:
    """RQ002; both together are allowed."""
    result_id = add(conn)
    with pytest.raises(psycopg.DatabaseError) as caught, conn.transaction():
        update(conn, result_id, **change)
    assert caught.value.sqlstate == "RQ002"
    update(conn, result_id, spec_json=Jsonb({"task_path": "a.c"}), task_path="a.c")
    assert task(conn, result_id).task_path == "a.c"


def test_task_path_is_filled_from_the_spec(conn: psycopg.Connection) -> None:
    """As Django's own trigger does: when it is null or empty."""
    for given in ({}, {"task_path": ""}, {"task_path": None}):
        query = "insert into task_runs (spec_json, spec_hash, task_path) values (%s, %s, %s) returning task_path"
        row = conn.execute(query, [Jsonb({"task_path": "a.b"}), uuid.uuid4().hex, given.get("task_path")]).fetchone()
        assert row == ("a.b",)


def test_foreign_rows_short_hash_is_a_hash(conn: psycopg.Connection) -> None:
    """spec_hash of any length up to 64 is unique among active rows; longer does not fit the column."""
    add(conn, spec_hash="x")
    with pytest.raises(errors.UniqueViolation), conn.transaction():
        add(conn, spec_hash="x")
    with pytest.raises(errors.StringDataRightTruncation), conn.transaction():
        add(conn, spec_hash="x" * 65)
    assert len(claim(conn)) == 1


def test_foreign_rows_parent_that_does_not_exist_is_refused(conn: psycopg.Connection) -> None:
    """The foreign key of the contract."""
    with pytest.raises(errors.ForeignKeyViolation), conn.transaction():
        add(conn, status="WAITING", parent_id=2**63 - 1)


def test_foreign_rows_step_that_is_its_own_parent_ends_no_other(conn: psycopg.Connection, clock: Clock) -> None:
    """A cycle cannot loop: cancelling ends it."""
    a = add(conn, status="WAITING")
    b = add(conn, status="WAITING", parent_id=a)
    update(conn, a, parent_id=b)
    own = add(conn, status="WAITING")
    update(conn, own, parent_id=own)
    clock.advance(minutes=5)
    assert reclaim(conn) == {}
    conn.execute("select reproq_cancel(%s), reproq_cancel(%s)", [a, own])
    assert [kind(conn, t) for t in (a, b, own)] == ["cancelled", "parent_failed", "cancelled"]


@pytest.mark.parametrize(
    "change",
    [
        {"lock_key": "other"},
        {"lock_key": None},
        {"queue_name": "q2"},
        {"priority": 5},
        {"run_after": "2001-01-01 00:00+00"},
        {"concurrency_key": "c"},
        {"concurrency_limit": 5},
    ],
)
def test_foreign_rows_blocked_task_that_is_changed_is_looked_at_again(
    conn: psycopg.Connection, change: dict[str, Any]
) -> None:
    """A new key, queue, priority or time unblocks it: the claim decides again."""
    claimed(conn, lock_key="k")
    blocked = add(conn, lock_key="k")
    claim(conn)
    assert task(conn, blocked).blocked_on == "l:k"
    update(conn, blocked, **change)
    assert task(conn, blocked).blocked_on == ""


def test_foreign_rows_blocked_task_that_is_put_off_waits_for_its_time(conn: psycopg.Connection, clock: Clock) -> None:
    """Only due tasks are blocked."""
    holder = claimed(conn, lock_key="k")
    blocked = add(conn, lock_key="k")
    claim(conn)
    update(conn, blocked, run_after=clock.now + MINUTE)
    complete(conn, holder)
    assert claim(conn) == []
    clock.advance(minutes=1)
    assert claimed_ids(conn) == [blocked]


def test_metadata_and_progress_are_written_as_they_are(conn: psycopg.Connection) -> None:
    """Updates of columns we do not rule change nothing else, whatever the state."""
    got = claimed(conn)
    before = task(conn, got.result_id)
    update(conn, got.result_id, metadata_json=Jsonb({"progress": 5}), artifacts_uri="s3://x")
    assert task(conn, got.result_id)._replace(metadata_json={}, artifacts_uri=None) == before
