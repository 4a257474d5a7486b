"""Chords while a Go worker runs on our schema: it adds to counts that we have taken from the rows already."""

from __future__ import annotations

import psycopg
import pytest

from tests.sql.calls import (
    add,
    add_many,
    chord,
    claim,
    claimed_ids,
    complete,
    fail_for_good,
    rows,
    statuses,
    task,
    update,
    workflow,
)
from tests.sql.go_worker import GoWorker
from tests.support.database import Clock


@pytest.fixture
def go(conn: psycopg.Connection, clock: Clock) -> GoWorker:
    """A Go worker on the session of `conn`."""
    return GoWorker(conn, clock)


def test_go_worker_runs_a_chord_and_its_callback_last(conn: psycopg.Connection, go: GoWorker) -> None:
    """The counts are those of the rows after each member, and the callback waits for the last one."""
    workflow_id, members, callback = chord(conn, 3)
    for done, member in enumerate(members):
        found = workflow(conn, workflow_id)
        assert (found.status, found.success_count, found.failure_count) == ("RUNNING", done, 0)
        assert task(conn, callback).status == "WAITING"
        go.claim()
        assert go.succeed(member)
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count) == ("WAITING_CALLBACK", 3)
    got = go.claim()
    assert got is not None
    assert got.result_id == callback
    assert go.succeed(callback)
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("SUCCESSFUL", 3, 0)


def test_go_worker_reads_back_the_counts_of_the_rows(conn: psycopg.Connection, go: GoWorker) -> None:
    """What its UPDATE returns is what it decides by."""
    _, members, _ = chord(conn, 2)
    go.claim()
    update(conn, members[0], status="SUCCESSFUL", leased_by=None)
    (counted,) = go.count_success(members[0])
    assert (counted.status, counted.success_count) == ("RUNNING", 1)


@pytest.mark.parametrize("ours", [0, 1, 2])
def test_chord_run_by_both_waits_for_all_members(conn: psycopg.Connection, go: GoWorker, ours: int) -> None:
    """Whichever member is ours: the callback starts after the third."""
    workflow_id, members, callback = chord(conn, 3)
    for place, member in enumerate(members):
        assert task(conn, callback).status == "WAITING"
        if place == ours:
            complete(conn, *claim(conn, 1))
        else:
            go.claim()
            go.succeed(member)
    assert (workflow(conn, workflow_id).success_count, task(conn, callback).status) == (3, "READY")


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("by_go", [True, False])
def test_chord_with_a_failed_member_never_runs_its_callback(
    conn: psycopg.Connection, go: GoWorker, failing: int, by_go: bool
) -> None:
    """It ends as workflow_failed, once, whichever program failed the member and whichever ended the others."""
    workflow_id, members, callback = chord(conn, 3)
    for place, member in enumerate(members):
        if place != failing:
            go.claim()
            go.succeed(member)
        elif by_go:
            go.claim()
            go.fail(member)
        else:
            fail_for_good(conn, *claim(conn, 1))
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("FAILED", 2, 1)
    assert [error["kind"] for error in task(conn, callback).errors_json] == ["workflow_failed"]
    assert claimed_ids(conn) == []
    assert go.claim() is None


def test_chord_written_by_hand_keeps_the_counts_of_its_rows(conn: psycopg.Connection) -> None:
    """Counts and status that another program writes are replaced; what they belong to may be changed."""
    workflow_id, members, callback = chord(conn, 2)
    complete(conn, *claim(conn, 1))
    conn.execute("update workflow_runs set success_count = 2, failure_count = 7, status = 'SUCCESSFUL'")
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("RUNNING", 1, 0)
    conn.execute("update workflow_runs set expected_count = 1")
    assert workflow(conn, workflow_id).status == "WAITING_CALLBACK"
    assert statuses(conn, [*members, callback]) == ["SUCCESSFUL", "READY", "READY"]


@pytest.mark.parametrize("status", ["READY", "RUNNING"])
def test_callback_does_not_leave_waiting_while_members_are_open(conn: psycopg.Connection, status: str) -> None:
    """A direct UPDATE leaves it WAITING, and its other columns are written; after the last member it goes through."""
    _, members, callback = chord(conn, 2)
    complete(conn, *claim(conn, 1))
    update(conn, callback, status=status, wait_count=0, priority=7)
    row = task(conn, callback)
    assert (row.status, row.wait_count, row.priority) == ("WAITING", 2, 7)
    conn.execute("set local session_replication_role = replica")
    update(conn, members[1], status="SUCCESSFUL", finished_at=row.created_at)
    conn.execute("set local session_replication_role = origin")
    update(conn, callback, status=status)
    assert task(conn, callback).status == status


def test_callback_may_be_cancelled_while_members_are_open(conn: psycopg.Connection) -> None:
    """Only a start is refused."""
    workflow_id, _, callback = chord(conn, 2)
    update(conn, callback, status="CANCELLED")
    assert (task(conn, callback).status, workflow(conn, workflow_id).status) == ("CANCELLED", "FAILED")


def test_large_chord_is_not_counted_for_each_member(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """Beyond a hundred members the counts may be a second old; what the Go worker adds to them is not kept."""
    workflow_id, members, callback = chord(conn, 101)
    for member in members[:100]:
        go.claim()
        go.succeed(member)
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count <= 100) == ("RUNNING", True)
    assert task(conn, callback).status == "WAITING"
    go.claim()
    go.succeed(members[100])
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, task(conn, callback).status) == ("WAITING_CALLBACK", 101, "READY")


def test_group_and_chain_of_a_go_worker_have_no_counts(conn: psycopg.Connection, go: GoWorker) -> None:
    """Tasks with a workflow_id and no row in workflow_runs end as before."""
    (member,) = add_many(conn, 1, workflow_id="00000000-0000-0000-0000-000000000001")
    step = add(conn, status="WAITING", parent_id=member, wait_count=1)
    go.claim()
    assert go.succeed(member)
    assert statuses(conn, [member, step]) == ["SUCCESSFUL", "READY"]
    assert rows(conn, "select * from workflow_runs") == []
