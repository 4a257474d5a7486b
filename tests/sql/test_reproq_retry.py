"""reproq_retry: running failed tasks again, one answer each."""

from __future__ import annotations

import uuid
from datetime import timedelta

import psycopg
import pytest

from tests.sql.calls import (
    add,
    call,
    cancel,
    chain,
    chord,
    claim,
    claimed,
    complete,
    fail_for_good,
    kind,
    reclaim,
    retry,
    task,
    update,
)
from tests.support.database import Clock


def test_retry_failed_task_starts_afresh(conn: psycopg.Connection, clock: Clock) -> None:
    """retried: READY now with all its attempts and its history; how it had ended is gone; it ages from now."""
    got = claimed(conn, max_attempts=3)
    fail_for_good(conn, got)
    update(conn, got.result_id, lost_count=3, cancel_requested=True)
    clock.advance(hours=5)
    assert retry(conn, got.result_id) == "retried"
    row = task(conn, got.result_id)
    assert (row.status, row.attempts, row.lost_count, row.run_after) == ("READY", 0, 0, clock.now)
    assert (row.finished_at, row.failed_at, row.last_error, row.cancel_requested) == (None, None, None, False)
    assert [entry["kind"] for entry in row.errors_json] == ["app_error"]
    (again,) = claim(conn, 1, queues=[got.queue_name])
    assert (again.result_id, again.attempts, again.waited) == (got.result_id, 1, timedelta(0))
    assert complete(conn, got) == ["lost"]
    assert complete(conn, again) == ["ok"]


def test_cancelled_tasks_too(conn: psycopg.Connection) -> None:
    """CANCELLED, as Django's admin writes it, is a failure that can be retried."""
    result_id = add(conn, status="CANCELLED")
    assert retry(conn, result_id) == "retried"


@pytest.mark.parametrize("status", ["READY", "WAITING", "RUNNING", "SUCCESSFUL"])
def test_retry_only_failures_are_retried(conn: psycopg.Connection, status: str) -> None:
    """not_failed, and nothing changes."""
    result_id = add(conn, status=status)
    before = task(conn, result_id)
    assert retry(conn, result_id) == "not_failed"
    assert task(conn, result_id) == before


@pytest.mark.parametrize("result_id", [0, -1, 2**63 - 1, None])
def test_retry_no_such_task_is_missing(conn: psycopg.Connection, result_id: int | None) -> None:
    """An answer, not an error."""
    assert retry(conn, result_id) == "missing"


@pytest.mark.parametrize("duplicate", ["READY", "RUNNING"])
def test_retry_active_duplicate_is_an_answer(conn: psycopg.Connection, duplicate: str) -> None:
    """already_active instead of a constraint's error; both rows stay as they are."""
    spec_hash = uuid.uuid4().hex
    failed = add(conn, status="FAILED", spec_hash=spec_hash)
    active = add(conn, status=duplicate, spec_hash=spec_hash)
    before = [task(conn, failed), task(conn, active)]
    assert retry(conn, failed) == "already_active"
    assert [task(conn, failed), task(conn, active)] == before
    update(conn, active, status="SUCCESSFUL")
    assert retry(conn, failed) == "retried"


def test_retry_two_failures_of_one_spec(conn: psycopg.Connection) -> None:
    """The first one goes, the second one is told; nothing is stuck for ever."""
    spec_hash = uuid.uuid4().hex
    ids = [add(conn, status="FAILED", spec_hash=spec_hash) for _ in range(2)]
    assert [retry(conn, result_id) for result_id in ids] == ["retried", "already_active"]


@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_retry_expiry_that_has_passed_does_not_end_the_retry(
    conn: psycopg.Connection, clock: Clock, seconds: int
) -> None:
    """expires_at is dropped when it has passed, and kept when it has not."""
    expires_at = clock.now + timedelta(seconds=seconds)
    result_id = add(conn, status="FAILED", expires_at=expires_at)
    assert retry(conn, result_id) == "retried"
    assert task(conn, result_id).expires_at == (expires_at if seconds > 0 else None)
    assert [got.result_id for got in claim(conn)] == [result_id]


@pytest.mark.parametrize("cancelled", [False, True])
def test_retry_step_whose_failed_predecessor_was_pruned(
    conn: psycopg.Connection, clock: Clock, *, cancelled: bool
) -> None:
    """not_failed as before the prune, however the step ended while it waited: it must not run without the other."""
    first, second = chain(conn, 2)
    if cancelled:
        cancel(conn, second)
    update(conn, first, expires_at=clock.now)
    reclaim(conn)
    assert [kind(conn, step) for step in (first, second)] == ["expired", "cancelled" if cancelled else "parent_failed"]
    assert retry(conn, second) == "not_failed"
    clock.advance(seconds=1)
    assert call(conn, "reproq_prune_expired") == [(1,)]
    assert retry(conn, second) == "not_failed"
    assert call(conn, "reproq_retry_failed", kinds=["cancelled", "parent_failed"]) == [(second, "not_failed")]
    assert claim(conn) == []


def test_retry_step_whose_successful_predecessor_was_pruned(conn: psycopg.Connection, clock: Clock) -> None:
    """It had started and failed of itself: it is retried."""
    _, second = chain(conn, 2)
    complete(conn, *claim(conn))
    fail_for_good(conn, *claim(conn))
    conn.execute("delete from task_runs where result_id <> %s", [second])
    assert retry(conn, second) == "retried"


def test_retry_step_that_reclaim_ended_as_an_orphan(conn: psycopg.Connection, clock: Clock) -> None:
    """not_failed: what it waited for was deleted before it had ended."""
    first, second = chain(conn, 2)
    conn.execute("delete from task_runs where result_id = %s", [first])
    clock.advance(minutes=2)
    assert reclaim(conn) == {second: "failed"}
    assert retry(conn, second) == "not_failed"


@pytest.mark.parametrize("gone", ["member", "workflow row"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_retry_callback_whose_failed_member_was_pruned(conn: psycopg.Connection, gone: str, *, cancelled: bool) -> None:
    """not_failed, also when the chord's own row is gone: it must not run without its members."""
    _, members, callback = chord(conn, 2)
    if cancelled:
        cancel(conn, callback)
    complete(conn, *claim(conn, 1))
    fail_for_good(conn, *claim(conn))
    conn.execute("delete from task_runs where result_id = %s", [members[1]])
    if gone == "workflow row":
        conn.execute("delete from workflow_runs")
    assert retry(conn, callback) == "not_failed"
