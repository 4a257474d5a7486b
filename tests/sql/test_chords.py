"""Chords and groups: every way into a final state has the same consequences."""

from __future__ import annotations

import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.schema import django
from tests.sql.calls import (
    add,
    add_many,
    cancel,
    chord,
    claim,
    claimed_ids,
    complete,
    fail_for_good,
    kind,
    reclaim,
    retry,
    rows,
    statuses,
    task,
    update,
    workflow,
)
from tests.sql.failures import (
    FAILURES,
    Failure,
    by_fail,
    by_hand_cancelled,
    by_reclaim,
    run_next,
)
from tests.support.database import Clock


def test_chord_runs_its_callback_when_all_members_succeeded(conn: psycopg.Connection, clock: Clock) -> None:
    """Counts and status of the workflow follow the rows; the callback runs once, after the last member."""
    workflow_id, members, callback = chord(conn, 3)
    for done in range(3):
        found = workflow(conn, workflow_id)
        assert (found.status, found.success_count, found.failure_count) == ("RUNNING", done, 0)
        assert task(conn, callback).status == "WAITING"
        clock.advance(minutes=1)
        assert run_next(conn) == members[done]
    assert workflow(conn, workflow_id).status == "WAITING_CALLBACK"
    row = task(conn, callback)
    assert (row.status, row.wait_count, row.run_after) == ("READY", 0, clock.now)
    assert run_next(conn) == callback
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("SUCCESSFUL", 3, 0)


def test_members_that_end_in_one_call(conn: psycopg.Connection) -> None:
    """A whole chord completed by one statement starts its callback once."""
    workflow_id, _, callback = chord(conn, 10)
    assert set(complete(conn, *claim(conn))) == {"ok"}
    assert (workflow(conn, workflow_id).success_count, task(conn, callback).status) == (10, "READY")


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("place", [0, 2])
def test_chord_whose_member_fails_in_any_way_ends(
    conn: psycopg.Connection, clock: Clock, failure: Failure, place: int
) -> None:
    """Workflow FAILED, callback workflow_failed, in the same transaction; the other members go on."""
    workflow_id, members, callback = chord(conn, 3)
    for _ in range(place):
        run_next(conn)
    (got,) = claim(conn, 1)
    failure(conn, clock, got)
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("FAILED", place, 1)
    assert kind(conn, callback) == "workflow_failed"
    for _ in range(2 - place):
        run_next(conn)
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("FAILED", 2, 1)
    assert (kind(conn, callback), statuses(conn, members).count("SUCCESSFUL")) == ("workflow_failed", 2)


@pytest.mark.parametrize("failure", [by_fail, by_reclaim, by_hand_cancelled])
def test_retrying_the_failed_member_opens_the_chord_again(
    conn: psycopg.Connection, clock: Clock, failure: Failure
) -> None:
    """Counts from rows; the callback waits again, is not retried on its own, and runs when all have succeeded."""
    workflow_id, _, callback = chord(conn, 3)
    (got,) = claim(conn, 1)
    failure(conn, clock, got)
    run_next(conn)
    assert retry(conn, callback) == "not_failed"
    assert retry(conn, got.result_id) == "retried"
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("RUNNING", 1, 0)
    assert task(conn, callback).status == "WAITING"
    run_next(conn)
    run_next(conn)
    assert workflow(conn, workflow_id).status == "WAITING_CALLBACK"
    assert run_next(conn) == callback


def test_chord_with_two_failed_members_both_must_be_retried(conn: psycopg.Connection) -> None:
    """The chord stays FAILED until the last failed member is retried."""
    workflow_id, members, callback = chord(conn, 3)
    for got in claim(conn, 2):
        fail_for_good(conn, got)
    assert retry(conn, members[0]) == "retried"
    assert (workflow(conn, workflow_id).status, kind(conn, callback)) == ("FAILED", "workflow_failed")
    assert retry(conn, members[1]) == "retried"
    assert (workflow(conn, workflow_id).status, task(conn, callback).status) == ("RUNNING", "WAITING")
    for _ in range(4):
        run_next(conn)
    assert workflow(conn, workflow_id).status == "SUCCESSFUL"


def test_chord_callback_that_fails_fails_the_workflow_and_can_be_retried(conn: psycopg.Connection) -> None:
    """With all members successful it runs again on its own."""
    workflow_id, _, callback = chord(conn, 2)
    run_next(conn)
    run_next(conn)
    (got,) = claim(conn)
    fail_for_good(conn, got)
    assert workflow(conn, workflow_id).status == "FAILED"
    assert retry(conn, callback) == "retried"
    assert workflow(conn, workflow_id).status == "WAITING_CALLBACK"
    assert run_next(conn) == callback
    assert workflow(conn, workflow_id).status == "SUCCESSFUL"


def test_chord_cancelled_callback_stays_cancelled(conn: psycopg.Connection) -> None:
    """It ended by itself: neither its members' success nor a member's retry brings it back."""
    workflow_id, members, callback = chord(conn, 2)
    cancel(conn, callback)
    (got,) = claim(conn, 1)
    fail_for_good(conn, got)
    retry(conn, members[0])
    run_next(conn)
    run_next(conn)
    assert (workflow(conn, workflow_id).status, kind(conn, callback)) == ("FAILED", "cancelled")


def test_chord_what_waits_for_a_callback_follows_it(conn: psycopg.Connection) -> None:
    """A chain behind a chord: ended with it, waiting again with it, and run after it."""
    _, members, callback = chord(conn, 2)
    behind = add(conn, status="WAITING", parent_id=callback)
    (got,) = claim(conn, 1)
    fail_for_good(conn, got)
    assert (kind(conn, callback), kind(conn, behind)) == ("workflow_failed", "parent_failed")
    retry(conn, members[0])
    assert statuses(conn, [callback, behind]) == ["WAITING", "WAITING"]
    assert [run_next(conn) for _ in range(4)] == [members[1], members[0], callback, behind]


def test_chord_chain_in_front_of_a_member(conn: psycopg.Connection) -> None:
    """A member that waits for a step: the failure of the step fails the member, the chord, and its callback."""
    step = add(conn, priority=9)
    workflow_id, members, callback = chord(conn, 2)
    update(conn, members[1], status="WAITING", parent_id=step)
    (got,) = claim(conn, 1)
    fail_for_good(conn, got)
    assert [kind(conn, t) for t in (step, members[1], callback)] == ["app_error", "parent_failed", "workflow_failed"]
    assert workflow(conn, workflow_id).status == "FAILED"


def test_members_one_by_one_do_not_start_the_callback_early(conn: psycopg.Connection) -> None:
    """Counted against expected_count, not against the members that are there yet."""
    workflow_id = uuid.uuid4()
    callback = add(conn, workflow_id=workflow_id, status="WAITING", wait_count=3)
    conn.execute(
        "insert into workflow_runs (workflow_id, expected_count, callback_result_id) values (%s, 3, %s)",
        [workflow_id, callback],
    )
    for _ in range(3):
        assert task(conn, callback).status == "WAITING"
        add(conn, workflow_id=workflow_id)
        run_next(conn)
    assert task(conn, callback).status == "READY"


def test_chord_group_has_no_workflow_row_and_ends_by_itself(conn: psycopg.Connection) -> None:
    """Members of a group do not depend on each other."""
    workflow_id = uuid.uuid4()
    ids = add_many(conn, 3, workflow_id=workflow_id)
    (got,) = claim(conn, 1)
    fail_for_good(conn, got)
    run_next(conn)
    run_next(conn)
    assert statuses(conn, ids) == ["FAILED", "SUCCESSFUL", "SUCCESSFUL"]


def test_chord_of_a_thousand_members(conn: psycopg.Connection) -> None:
    """Completed a hundred at a time: exact counts, one callback."""
    workflow_id, _, callback = chord(conn, 1000)
    for _ in range(10):
        assert task(conn, callback).status == "WAITING"
        assert set(complete(conn, *claim(conn, 100))) == {"ok"}
    found = workflow(conn, workflow_id)
    assert (found.success_count, found.status, task(conn, callback).status) == (1000, "WAITING_CALLBACK", "READY")


def test_chord_without_callback_ends(conn: psycopg.Connection) -> None:
    """workflow_runs without a callback (or with one that was deleted) is SUCCESSFUL with its members."""
    workflow_id, _, callback = chord(conn, 2)
    conn.execute("delete from task_runs where result_id = %s", [callback])
    run_next(conn)
    run_next(conn)
    assert workflow(conn, workflow_id).status == "SUCCESSFUL"


def test_chord_whose_member_was_deleted_ends_after_a_minute(conn: psycopg.Connection, clock: Clock) -> None:
    """Not before: the member may be on its way. Another that still runs keeps the chord open."""
    workflow_id, members, callback = chord(conn, 3)
    conn.execute("delete from task_runs where result_id = %s", [members[0]])
    run_next(conn)
    clock.advance(seconds=61)
    assert reclaim(conn) == {}
    run_next(conn)
    clock.advance(seconds=59)
    assert reclaim(conn) == {}
    assert (workflow(conn, workflow_id).status, task(conn, callback).status) == ("RUNNING", "WAITING")
    clock.advance(seconds=2)
    assert reclaim(conn) == {callback: "failed"}
    assert (kind(conn, callback), workflow(conn, workflow_id).status) == ("workflow_failed", "FAILED")
    assert task(conn, callback).last_error == "workflow_failed: a member of its group was deleted"


def test_chord_expired_callback_fails_its_workflow(conn: psycopg.Connection, clock: Clock) -> None:
    """A WAITING task past expires_at ends, and its workflow with it."""
    workflow_id, _, callback = chord(conn, 1)
    update(conn, callback, expires_at=clock.now)
    assert reclaim(conn) == {callback: "failed"}
    assert (kind(conn, callback), workflow(conn, workflow_id).status) == ("expired", "FAILED")


def test_chord_rows_that_django_writes_run_to_their_end(conn: psycopg.Connection) -> None:
    """Every chain, chord and plain row of its backend: all succeed but what depends on a failing task."""
    written = django.rows()
    ids = [django.insert(conn, row) for row in written]
    for row in written:
        if row["status"] == "WAITING" and row["parent_id"] is None:
            conn.execute(
                "insert into workflow_runs (workflow_id, expected_count, callback_result_id) values (%s, %s, %s)",
                [row["workflow_id"], row["wait_count"], row["result_id"]],
            )
    # The sample holds one of two members of one chord: the other one, too.
    lonely = [row["workflow_id"] for row in written if row["spec_json"]["args"] == [6, 2]]
    ids += [add(conn, workflow_id=workflow_id) for workflow_id in lonely]
    while got := claim(conn, 100):
        for one in got:
            if one.task_path.endswith(".boom"):
                fail_for_good(conn, one)
            else:
                complete(conn, one)
    found = {result_id: task(conn, result_id) for result_id in ids}
    assert {row.status for row in found.values()} == {"SUCCESSFUL", "FAILED"}
    failed = {
        row.task_path.rpartition(".")[2]: row.errors_json[-1]["kind"]
        for row in found.values()
        if row.status == "FAILED"
    }
    assert failed == {"boom": "app_error", "add": "parent_failed", "total": "workflow_failed"}


def spec(*args: int) -> dict[str, object]:
    """What a producer asks for."""
    return {"task_path": "app.tasks.run", "args": list(args)}


def test_reproq_chord_builds_what_django_does(conn: psycopg.Connection) -> None:
    """Members, then the callback with ordinal 0; equal members are two tasks; without members it starts at once."""
    built = rows(conn, "select * from reproq_chord(%s, %s)", [Jsonb([spec(1), spec(1)]), Jsonb(spec())])
    *members, callback = [row.result_id for row in built]
    assert [row.ordinal for row in built] == [1, 2, 0]
    assert statuses(conn, [*members, callback]) == ["READY", "READY", "WAITING"]
    assert sorted(run_next(conn) for _ in members) == members
    assert run_next(conn) == callback
    assert workflow(conn, built[0].workflow_id).status == "SUCCESSFUL"

    (alone,) = rows(conn, "select * from reproq_chord('[]', %s)", [Jsonb(spec())])
    assert run_next(conn) == alone.result_id
    assert workflow(conn, alone.workflow_id).status == "SUCCESSFUL"


def test_reproq_group_builds_what_django_does(conn: psycopg.Connection) -> None:
    """All READY under one workflow_id; an empty group is no row."""
    built = rows(conn, "select * from reproq_group(%s)", [Jsonb([spec(1), spec(1)])])
    assert claimed_ids(conn) == [row.result_id for row in built]
    assert rows(conn, "select * from reproq_group('[]')") == []
    assert rows(conn, "select * from reproq_chain('[]')") == []


def test_chord_big_chord_that_failed_is_counted_once_a_second(conn: psycopg.Connection, clock: Clock) -> None:
    """Members that end after the first failure cost no count of the whole chord each; the last count is exact."""
    workflow_id, _, callback = chord(conn, 101)
    failed, first, second, *rest = claim(conn, 101)
    fail_for_good(conn, failed)
    assert kind(conn, callback) == "workflow_failed"
    complete(conn, first)
    assert workflow(conn, workflow_id).success_count == 0
    clock.advance(seconds=2)
    complete(conn, second)
    assert workflow(conn, workflow_id).success_count == 2
    complete(conn, *rest)
    found = workflow(conn, workflow_id)
    assert (found.status, found.success_count, found.failure_count) == ("FAILED", 100, 1)


def test_chord_member_whose_predecessor_was_deleted_ends_with_its_chord(conn: psycopg.Connection, clock: Clock) -> None:
    """The chord's row is there, but nothing can start that member any more: neither waits for ever."""
    workflow_id, _, callback = chord(conn, 1)
    before = add(conn)
    member = add(conn, status="WAITING", parent_id=before, wait_count=1, workflow_id=workflow_id)
    conn.execute("update workflow_runs set expected_count = 2 where workflow_id = %s", [workflow_id])
    conn.execute("delete from task_runs where result_id = %s", [before])
    complete(conn, *claim(conn))
    assert reclaim(conn) == {}
    clock.advance(minutes=2)
    assert reclaim(conn)[member] == "failed"
    assert (kind(conn, member), kind(conn, callback)) == ("parent_failed", "workflow_failed")
