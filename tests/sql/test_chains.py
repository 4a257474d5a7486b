"""Chains: every way into a final state has the same consequences."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    add,
    cancel,
    chain,
    claim,
    complete,
    fail_for_good,
    kind,
    retry,
    rows,
    statuses,
    task,
    update,
)
from tests.sql.failures import (
    FAILURES,
    Failure,
    by_cancel_before_start,
    by_fail,
    by_hand_failed,
    run_next,
)
from tests.support.database import Clock


def test_chain_runs_step_by_step(conn: psycopg.Connection, clock: Clock) -> None:
    """Each step starts only after the one before succeeded, and does not age while it waits."""
    steps = chain(conn)
    for place, step in enumerate(steps):
        assert statuses(conn, steps) == ["SUCCESSFUL"] * place + ["READY"] + ["WAITING"] * (2 - place)
        clock.advance(hours=1)
        (got,) = claim(conn)
        assert got.result_id == step
        assert got.waited <= timedelta(hours=1)
        complete(conn, got)
    assert set(statuses(conn, steps)) == {"SUCCESSFUL"}
    assert claim(conn) == []


def test_chain_step_starts_with_a_hash_of_its_own(conn: psycopg.Connection) -> None:
    """An active duplicate with the hash of the step cannot make its predecessor's completion fail."""
    first, second = chain(conn, 2)
    duplicate = add(conn, spec_hash=task(conn, second).spec_hash)
    (got,) = claim(conn, 1)
    assert (got.result_id, complete(conn, got)) == (first, ["ok"])
    assert statuses(conn, [second, duplicate]) == ["READY", "READY"]
    assert task(conn, second).spec_hash != task(conn, duplicate).spec_hash


def test_chain_step_that_is_to_run_later_waits_for_both(conn: psycopg.Connection, clock: Clock) -> None:
    """Its own run_after holds when it is later than the end of its predecessor."""
    steps = chain(conn, 2)
    update(conn, steps[1], run_after=clock.now + timedelta(hours=1))
    run_next(conn)
    assert task(conn, steps[1]).run_after == clock.now + timedelta(hours=1)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_chain_that_fails_at_any_step_in_any_way_ends(
    conn: psycopg.Connection, clock: Clock, failure: Failure, place: int
) -> None:
    """All later steps end as parent_failed in the same transaction; the earlier ones stay successful."""
    steps = chain(conn)
    for _ in range(place):
        run_next(conn)
    (got,) = claim(conn, 1)
    failure(conn, clock, got)
    assert statuses(conn, steps[:place]) == ["SUCCESSFUL"] * place
    assert task(conn, steps[place]).status in ("FAILED", "CANCELLED")
    assert [kind(conn, step) for step in steps[place + 1 :]] == ["parent_failed"] * (2 - place)
    assert all(task(conn, step).last_error.startswith("parent_failed: ") for step in steps[place + 1 :])


@pytest.mark.parametrize("failure", [by_fail, by_cancel_before_start, by_hand_failed])
@pytest.mark.parametrize("place", [0, 1])
def test_retrying_the_failed_step_lets_the_others_wait_again(
    conn: psycopg.Connection, clock: Clock, failure: Failure, place: int
) -> None:
    """Those that ended only because of it come back; on their own they are `not_failed`; then the chain runs."""
    steps = chain(conn, 4)
    for _ in range(place):
        run_next(conn)
    (got,) = claim(conn, 1)
    failure(conn, clock, got)
    assert retry(conn, steps[place + 1]) == "not_failed"
    assert retry(conn, steps[place]) == "retried"
    assert statuses(conn, steps[place + 1 :]) == ["WAITING"] * (3 - place)
    assert [run_next(conn) for _ in steps[place:]] == steps[place:]


def test_chain_step_that_failed_on_its_own_does_not_come_back(conn: psycopg.Connection) -> None:
    """Cancelled by itself: the retry of an earlier step does not undo that, nor bring back what is behind it."""
    steps = chain(conn, 4)
    cancel(conn, steps[2])
    (got,) = claim(conn, 1)
    fail_for_good(conn, got)
    assert [kind(conn, s) for s in steps] == ["app_error", "parent_failed", "cancelled", "parent_failed"]
    retry(conn, steps[0])
    assert [(task(conn, s).status, kind(conn, s)) for s in steps[1:]] == [
        ("WAITING", None),
        ("FAILED", "cancelled"),
        ("FAILED", "parent_failed"),
    ]


def test_chain_one_parent_of_many_steps(conn: psycopg.Connection) -> None:
    """A task may have several children: all start, or all end."""
    for good in (True, False):
        parent = add(conn, priority=9)
        children = [add(conn, status="WAITING", parent_id=parent) for _ in range(5)]
        (got,) = claim(conn, 1)
        if good:
            complete(conn, got)
        else:
            fail_for_good(conn, got)
        assert set(statuses(conn, children)) == {"READY" if good else "FAILED"}


@pytest.mark.parametrize(
    ("parent", "expected"),
    [("SUCCESSFUL", "READY"), ("FAILED", "FAILED"), ("CANCELLED", "FAILED"), ("READY", "WAITING")],
)
def test_chain_step_that_arrives_after_its_predecessor_ended(
    conn: psycopg.Connection, parent: str, expected: str
) -> None:
    """Rows of a chain may arrive one by one: it starts or ends at once."""
    step = add(conn, status="WAITING", parent_id=add(conn, status=parent))
    assert task(conn, step).status == expected
    assert kind(conn, step) == ("parent_failed" if expected == "FAILED" else None)


def test_chain_of_a_thousand_steps_ends_in_one_transaction(conn: psycopg.Connection) -> None:
    """No recursion that could overflow; every step is told."""
    conn.execute(
        "insert into task_runs (result_id, spec_json, spec_hash, status, parent_id)"
        """ select 5000000 + n, '{"task_path": "a.b"}', md5(n::text), case n when 0 then 'READY' else 'WAITING' end,"""
        " case when n > 0 then 4999999 + n end from generate_series(0, 1000) n"
    )
    (got,) = claim(conn, 1)
    fail_for_good(conn, got)
    found = rows(conn, "select status, errors_json #>> '{-1,kind}' as kind, count(*) from task_runs group by 1, 2")
    assert {(row.status, row.kind, row.count) for row in found} == {
        ("FAILED", "app_error", 1),
        ("FAILED", "parent_failed", 1000),
    }


def test_chain_deleted_parent_that_succeeded_holds_nothing_up(conn: psycopg.Connection) -> None:
    """The step is READY before its predecessor can be deleted."""
    first, second = chain(conn, 2)
    run_next(conn)
    conn.execute("delete from task_runs where result_id = %s", [first])
    assert (task(conn, second).parent_id, run_next(conn)) == (None, second)


def spec(*args: int) -> dict[str, object]:
    """What a producer asks for."""
    return {"task_path": "app.tasks.run", "args": list(args)}


def test_reproq_chain_builds_what_django_does(conn: psycopg.Connection) -> None:
    """First READY, the others WAITING for the one before, one workflow_id, no workflow row; it runs in order."""
    built = rows(conn, "select * from reproq_chain(%s)", [Jsonb([spec(1), spec(2), spec(3)])])
    ids = [row.result_id for row in built]
    assert [row.ordinal for row in built] == [1, 2, 3]
    assert statuses(conn, ids) == ["READY", "WAITING", "WAITING"]
    assert [task(conn, t).parent_id for t in ids] == [None, ids[0], ids[1]]
    assert {task(conn, t).workflow_id for t in ids} == {built[0].workflow_id}
    assert [run_next(conn) for _ in ids] == ids
