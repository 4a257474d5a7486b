"""reproq_concurrency_set, and which tasks limit a concurrency key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.calls import add, add_many, call, claim, claimed_ids, complete, refused, release, rows, task
from tests.support.database import Clock

KEY: dict[str, Any] = {"concurrency_key": "k", "concurrency_limit": 3}


def concurrency_set(conn: psycopg.Connection, limit: int | None, key: str = "k") -> None:
    call(conn, "reproq_concurrency_set", key=key, limit=limit)


def test_task_that_is_due_later_limits_nothing_now(conn: psycopg.Connection, clock: Clock) -> None:
    """Its limit counts from when it is due, and no longer than it lives."""
    later = [
        add(conn, concurrency_key="k", concurrency_limit=limit, run_after=clock.now + timedelta(days=365))
        for limit in (1, 2)
    ]
    ids = add_many(conn, 4, **KEY)
    got = claim(conn)
    assert [t.result_id for t in got] == ids[:3]
    release(conn, *got)
    clock.advance(days=366)
    assert len(claim(conn)) == 1
    assert later


def test_running_task_limits_its_key(conn: psycopg.Connection, clock: Clock) -> None:
    """Also one that another program started before it was due."""
    row = add(conn, concurrency_key="k", concurrency_limit=1, run_after=clock.now + timedelta(days=1))
    conn.execute("update task_runs set status = 'RUNNING' where result_id = %s", [row])
    add(conn, **KEY)
    assert claimed_ids(conn) == []


def test_concurrency_many_future_limits_cost_a_bounded_number_of_probes(conn: psycopg.Connection, clock: Clock) -> None:
    """Past a hundred smaller limits of future tasks the next one holds: never too many run."""
    later = clock.now + timedelta(days=1)
    for limit in range(1, 103):
        add(conn, concurrency_key="k", concurrency_limit=limit, run_after=later)
    add_many(conn, 150, concurrency_key="k", concurrency_limit=200)
    assert len(claim(conn, 150)) == 100


def test_operators_limit_wins(conn: psycopg.Connection) -> None:
    """Over smaller and larger ones and over none; null gives the word back to the tasks."""
    add_many(conn, 2, concurrency_key="k", concurrency_limit=1)
    add_many(conn, 2, concurrency_key="k", concurrency_limit=0)
    add_many(conn, 4, concurrency_key="k", concurrency_limit=9)
    concurrency_set(conn, 2)
    got = claim(conn)
    assert len(got) == 2
    assert claimed_ids(conn) == []
    concurrency_set(conn, 5)
    assert len(claim(conn)) == 3
    concurrency_set(conn, 1)
    complete(conn, *got)
    assert claimed_ids(conn) == []


def test_raised_and_removed_limit_unblocks(conn: psycopg.Connection) -> None:
    """Blocked tasks come back at once, as many as may start."""
    concurrency_set(conn, 1)
    ids = add_many(conn, 20, concurrency_key="k", concurrency_limit=15)
    assert len(claim(conn, 20)) == 1

    def unblocked() -> int:
        return sum(task(conn, t).blocked_on == "" and task(conn, t).status == "READY" for t in ids)

    assert unblocked() == 0
    concurrency_set(conn, 4)
    assert unblocked() == 3
    concurrency_set(conn, None)
    assert unblocked() == 14
    assert len(claim(conn, 20)) == 14


def test_concurrency_what_operators_set_is_shown_and_noted(conn: psycopg.Connection, clock: Clock) -> None:
    """In the view and in the audit log; what changes nothing leaves no note."""
    for limit in (2, 2, 3):
        concurrency_set(conn, limit)
    concurrency_set(conn, None, key="other")
    assert rows(conn, "select * from reproq_concurrency") == [("k", 3, clock.now)]
    concurrency_set(conn, None)
    assert rows(conn, "select * from reproq_concurrency") == []
    found = [(row.what, row.details["key"], row.details["limit"]) for row in call(conn, "reproq_audit")]
    assert found == [("concurrency_set", "k", limit) for limit in (None, 3, 2)]


@pytest.mark.parametrize(
    ("argument", "bad"), [("key", None), ("key", ""), ("key", "x" * 1025), ("limit", 0), ("limit", -1)]
)
def test_bad_arguments_are_refused_by_name(conn: psycopg.Connection, argument: str, bad: Any) -> None:
    """RQ001; nothing is written."""
    error = refused(conn, "reproq_concurrency_set", **{"key": "k", "limit": 1, argument: bad})
    assert error.sqlstate == "RQ001"
    assert f"p_{argument}" in str(error)
    assert rows(conn, "select from reproq_concurrency_limits") == []
