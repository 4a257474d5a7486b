"""reproq_prune_expired, _finished and _audit: only what is over and not needed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

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
    complete,
    fail_for_good,
    refused,
    retry,
    rows,
    statuses,
    task,
    update,
    value,
    workflow,
)
from tests.sql.schedules import STEP, fire
from tests.support.database import Clock

DAY = timedelta(days=1)


def expired(conn: psycopg.Connection, **arguments: Any) -> int:
    return int(call(conn, "reproq_prune_expired", **arguments)[0][0])


def finished(conn: psycopg.Connection, older_than: timedelta = DAY, **arguments: Any) -> int:
    return int(call(conn, "reproq_prune_finished", older_than=older_than, **arguments)[0][0])


def left(conn: psycopg.Connection) -> list[int]:
    return [row.result_id for row in rows(conn, "select result_id from task_runs order by result_id")]


def test_expired_are_those_that_do_not_run_and_are_past_their_time(conn: psycopg.Connection, clock: Clock) -> None:
    """Also what did not start in time; never RUNNING work, however late, nor what has no end in time or a later one."""
    past, future = clock.now - DAY, clock.now + DAY
    ends = ("SUCCESSFUL", "FAILED", "CANCELLED", "READY", "WAITING")
    gone = [add(conn, status=status, expires_at=past) for status in ends]
    kept = [add(conn, status="RUNNING", expires_at=past)]
    kept += [add(conn, status="SUCCESSFUL", expires_at=at) for at in (future, None)]
    assert expired(conn, dry_run=True) == len(gone)
    assert left(conn) == sorted(gone + kept)
    assert expired(conn) == len(gone)
    assert left(conn) == sorted(kept)
    assert expired(conn) == 0


def test_expired_task_ends_before_it_goes(conn: psycopg.Connection, clock: Clock) -> None:
    """What waits for it does not wait for ever; its chord stays while a member has not ended."""
    first, second = chain(conn, 2)
    update(conn, first, expires_at=clock.now)
    _, (member, other), callback = chord(conn, 2)
    update(conn, member, expires_at=clock.now)
    clock.advance(seconds=1)
    assert expired(conn) == 1
    assert left(conn) == [second, member, other, callback]
    assert [task(conn, t).last_error.split(":")[0] for t in (second, callback)] == ["parent_failed", "workflow_failed"]
    assert task(conn, member).status == "FAILED"


def test_finished_are_those_that_ended_long_ago(conn: psycopg.Connection, clock: Clock) -> None:
    """By the database's clock, from their end; live tasks stay whatever their age."""
    add(conn, status="SUCCESSFUL", finished_at=clock.now - 2 * DAY)
    young = add(conn, status="FAILED", finished_at=clock.now - DAY / 2)
    live = add(conn, enqueued_at=clock.now - 9 * DAY)
    assert finished(conn, dry_run=True) == 1
    assert finished(conn) == 1
    assert left(conn) == [young, live]
    clock.advance(hours=13)
    assert finished(conn) == 1
    assert left(conn) == [live]


def test_oldest_first_and_at_most_so_many(conn: psycopg.Connection, clock: Clock) -> None:
    """Call until 0."""
    ids = [
        add(conn, status="SUCCESSFUL", finished_at=clock.now - DAY * n, expires_at=clock.now - DAY * n)
        for n in (4, 5, 6, 7)
    ]
    assert finished(conn, limit=1) == 1
    assert left(conn) == ids[:3]
    assert expired(conn, limit=2) == 2
    assert left(conn) == ids[:1]
    assert [finished(conn, limit=2), finished(conn, limit=2)] == [1, 0]


def test_prune_step_stays_while_its_chain_goes_on(conn: psycopg.Connection, clock: Clock) -> None:
    """The one before a waiting step, and all of an unfinished chain: none becomes an orphan."""
    steps = chain(conn, 3)
    complete(conn, *claim(conn))
    clock.advance(days=2)
    assert finished(conn) == 0
    complete(conn, *claim(conn))
    complete(conn, *claim(conn))
    assert statuses(conn, steps) == ["SUCCESSFUL"] * 3
    clock.advance(days=2)
    assert finished(conn) == 3


def test_prune_predecessor_of_a_live_step_without_a_workflow_stays(conn: psycopg.Connection, clock: Clock) -> None:
    """Rows of other programs may have a parent and no workflow."""
    old = clock.now - 2 * DAY
    first = add(conn, status="SUCCESSFUL", finished_at=old, expires_at=old)
    step = add(conn, parent_id=first)
    assert (finished(conn), expired(conn)) == (0, 0)
    update(conn, step, status="SUCCESSFUL", finished_at=old)
    assert finished(conn) == 2


def test_prune_member_stays_while_its_chord_goes_on(conn: psycopg.Connection, clock: Clock) -> None:
    """Pruning must not change what is counted; afterwards the workflow's row goes with its last task."""
    workflow_id, _, callback = chord(conn, 2)
    complete(conn, *claim(conn, 1))
    clock.advance(days=2)
    assert finished(conn) == 0
    complete(conn, *claim(conn, 1))
    assert [t.result_id for t in claim(conn)] == [callback]
    complete(conn, *[])
    clock.advance(days=2)
    assert finished(conn) == 0
    cancel(conn, callback)
    fail_for_good(conn, *claimed_again(conn, callback))
    clock.advance(days=2)
    while finished(conn):
        pass
    assert left(conn) == []
    assert rows(conn, "select 1 from workflow_runs where workflow_id = %s", [workflow_id]) == []


def claimed_again(conn: psycopg.Connection, result_id: int) -> list[Any]:
    """The task as its claim gave it."""
    return rows(conn, "select result_id, lease_token from task_runs where result_id = %s", [result_id])


def test_prune_failed_member_can_still_be_retried(conn: psycopg.Connection, clock: Clock) -> None:
    """The successes of a failed chord stay as long as its failure does: retried, it comes to its end."""
    workflow_id, members, callback = chord(conn, 3)
    good, also_good, bad = claim(conn)
    complete(conn, good, also_good)
    clock.advance(days=2)
    fail_for_good(conn, bad)
    assert finished(conn) == 0  # two old successes
    assert retry(conn, bad.result_id) == "retried"
    complete(conn, *claim(conn))
    assert workflow(conn, workflow_id).status == "WAITING_CALLBACK"
    complete(conn, *claim(conn))
    assert statuses(conn, [*members, callback]) == ["SUCCESSFUL"] * 4


def test_callback_of_failed_chord_stays_while_a_member_can_be_retried(conn: psycopg.Connection, clock: Clock) -> None:
    """prune_expired keeps a failed callback: the retry of the member brings it back, and the chord ends with it."""
    workflow_id, (member,), callback = chord(conn, 1)
    update(conn, callback, expires_at=clock.now + DAY)
    fail_for_good(conn, *claim(conn))
    clock.advance(days=2)
    assert expired(conn) == 0
    assert retry(conn, member) == "retried"
    update(conn, callback, expires_at=None)
    complete(conn, *claim(conn))
    assert (task(conn, callback).status, workflow(conn, workflow_id).status) == ("READY", "WAITING_CALLBACK")
    complete(conn, *claim(conn))
    assert workflow(conn, workflow_id).status == "SUCCESSFUL"


def test_callback_of_failed_chord_goes_with_its_members(conn: psycopg.Connection, clock: Clock) -> None:
    """The callback goes with or after all that failed, never before, and the workflow row with the last of them."""
    _, members, callback = chord(conn, 2)
    fail_for_good(conn, *claim(conn, 1))
    clock.advance(hours=25)
    fail_for_good(conn, *claim(conn, 1))
    assert (finished(conn), left(conn)) == (1, [members[1], callback])
    clock.advance(days=2)
    assert (finished(conn, limit=1), left(conn)) == (1, [callback])
    assert (finished(conn), left(conn)) == (1, [])
    assert rows(conn, "select from workflow_runs") == []


def test_children_that_have_ended_let_go(conn: psycopg.Connection, clock: Clock) -> None:
    """A parent whose children are final may go before them."""
    parent = add(conn, status="SUCCESSFUL", finished_at=clock.now - 2 * DAY)
    child = add(conn, status="SUCCESSFUL", parent_id=parent)
    assert finished(conn) == 1
    assert left(conn) == [child]


def test_occurrences_of_schedules_that_are_gone_go_too(conn: psycopg.Connection, clock: Clock, planned: Any) -> None:
    """Those of schedules that exist are the beat's to forget."""
    clock.set(planned)
    fire(conn, [planned], planned + STEP)
    clock.advance(days=2)
    finished(conn)
    assert value(conn, "select count(*) from periodic_occurrences") == 1
    call(conn, "reproq_schedule_rm", name="s")
    finished(conn, dry_run=True)
    assert value(conn, "select count(*) from periodic_occurrences") == 1
    finished(conn)
    assert value(conn, "select count(*) from periodic_occurrences") == 0


def test_audit_rows_by_age(conn: psycopg.Connection, clock: Clock) -> None:
    """Old ones go, in batches; that they went is noted; nothing to delete leaves no note."""
    for result_id in add_many(conn, 3):
        cancel(conn, result_id)
    clock.advance(days=400)
    assert call(conn, "reproq_prune_audit", older_than=365 * DAY, dry_run=True) == [(3,)]
    assert [call(conn, "reproq_prune_audit", older_than=365 * DAY, limit=2)[0][0] for _ in range(3)] == [2, 1, 0]
    assert [row.what for row in call(conn, "reproq_audit")] == ["prune_audit", "prune_audit"]


def test_prune_what_was_pruned_is_in_the_audit_log(conn: psycopg.Connection, clock: Clock) -> None:
    """How many; a dry run and an empty one leave no row."""
    add(conn, status="SUCCESSFUL", expires_at=clock.now - DAY, finished_at=clock.now - DAY * 2)
    add(conn, status="SUCCESSFUL", finished_at=clock.now - DAY * 2)
    for _ in range(2):
        expired(conn, dry_run=True)
        expired(conn)
        finished(conn)
    found = call(conn, "reproq_audit")
    assert [(row.what, row.details["deleted"]) for row in found] == [("prune_finished", 1), ("prune_expired", 1)]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("reproq_prune_expired", {"limit": 0}),
        ("reproq_prune_finished", {"older_than": DAY, "limit": -1}),
        ("reproq_prune_finished", {"older_than": None}),
        ("reproq_prune_finished", {"older_than": -DAY}),
        ("reproq_prune_audit", {"older_than": None}),
        ("reproq_prune_audit", {"older_than": DAY, "limit": 0}),
    ],
)
def test_bad_arguments_are_refused(conn: psycopg.Connection, function: Any, arguments: dict[str, Any]) -> None:
    """RQ001 that names the argument."""
    error = refused(conn, function, **arguments)
    assert error.sqlstate == "RQ001"
    assert f"p_{list(arguments)[-1]}" in str(error)


def test_prune_task_that_came_back_meanwhile_stays(conn: psycopg.Connection) -> None:
    """Chosen when it was final, looked at again under its lock: retried by then, it is not deleted."""
    back, over = add(conn), add(conn, status="SUCCESSFUL")
    assert value(conn, "select _reproq_delete_final(%s, false)", [[back, over]]) == 1
    assert left(conn) == [back]
