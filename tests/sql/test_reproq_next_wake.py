"""reproq_next_wake: exactly when a worker that is not notified should look again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.calls import MINUTE, add, claim, claimed, limit_set, next_wake, refused, update
from tests.support.database import Clock

NOW = timedelta(0)


def test_nothing_known_ahead_is_null(conn: psycopg.Connection) -> None:
    """No task, no lease: sleep until rung."""
    assert next_wake(conn) is None
    add(conn, queue_name="other")
    add(conn, status="WAITING")
    add(conn, status="SUCCESSFUL")
    assert next_wake(conn) is None


def test_next_wake_due_task_is_now(conn: psycopg.Connection, clock: Clock) -> None:
    """0, also for a task that became due long ago."""
    add(conn, enqueued_at=clock.now - timedelta(days=9))
    assert next_wake(conn) == NOW


def test_next_wake_next_due_task_is_exact(conn: psycopg.Connection, clock: Clock) -> None:
    """The earliest of all streams of the queues asked about."""
    for seconds, more in ((50.0, {}), (9.5, {"priority": -3}), (20.0, {"priority": 7}), (1.0, {"queue_name": "other"})):
        add(conn, run_after=clock.now + timedelta(seconds=seconds), **more)
    assert next_wake(conn) == timedelta(seconds=9.5)
    assert next_wake(conn, "default", "other") == timedelta(seconds=1)
    clock.advance(seconds=9.5)
    assert next_wake(conn) == NOW


def test_next_wake_task_enqueued_in_the_future_counts_from_then(conn: psycopg.Connection, clock: Clock) -> None:
    """Ready since is the later of enqueued_at and run_after."""
    update(conn, add(conn, run_after=clock.now), enqueued_at=clock.now + timedelta(seconds=5))
    assert next_wake(conn) == timedelta(seconds=5)


def test_next_wake_next_token_is_exact(conn: psycopg.Connection, clock: Clock) -> None:
    """A throttled task is due when its bucket has a token (2 us more at most); one without a bucket is due now."""
    limit_set(conn, "task:app.tasks.slow", 0.25, 1)
    for _ in range(3):
        add(conn, task_path="app.tasks.slow")
    assert next_wake(conn) == NOW
    claim(conn, lease="1 day")
    wake = next_wake(conn)
    assert wake is not None
    assert NOW <= wake - timedelta(seconds=4) <= timedelta(microseconds=2)
    clock.advance(seconds=1)
    wake = next_wake(conn)
    assert wake is not None
    assert NOW <= wake - timedelta(seconds=3) <= timedelta(microseconds=2)
    add(conn)
    assert next_wake(conn) == NOW


def test_next_wake_future_task_under_an_empty_bucket_waits_for_both(conn: psycopg.Connection, clock: Clock) -> None:
    """The later of due and token."""
    limit_set(conn, "global", 0.1, 1)
    add(conn)
    claim(conn, lease="1 day")
    add(conn, run_after=clock.now + timedelta(seconds=30))
    assert next_wake(conn) == timedelta(seconds=30)
    add(conn, run_after=clock.now + timedelta(seconds=2))
    wake = next_wake(conn)
    assert wake is not None
    assert NOW <= wake - timedelta(seconds=10) <= timedelta(microseconds=2)


def test_next_wake_end_of_a_lease_is_a_time_to_look(conn: psycopg.Connection, clock: Clock) -> None:
    """Any holder, any queue: some worker must reclaim it."""
    claimed(conn)
    add(conn, run_after=clock.now + timedelta(seconds=70))
    assert next_wake(conn) == timedelta(seconds=60)
    clock.advance(seconds=15)
    assert next_wake(conn) == timedelta(seconds=45)


def test_paused_queues_do_not_count(conn: psycopg.Connection, clock: Clock) -> None:
    """What is paused notifies when it is resumed."""
    add(conn)
    add(conn, queue_name="going", run_after=clock.now + timedelta(seconds=5))
    conn.execute("select reproq_pause('default')")
    assert next_wake(conn) is None
    assert next_wake(conn, "default", "going") == timedelta(seconds=5)
    conn.execute("select reproq_resume('default')")
    assert next_wake(conn) == NOW


def test_blocked_tasks_do_not_count(conn: psycopg.Connection, clock: Clock) -> None:
    """The release of the key notifies; until then only the lease of the holder is ahead."""
    claimed(conn, lock_key="k")
    add(conn, lock_key="k")
    assert next_wake(conn) == NOW  # not looked at yet
    claim(conn)
    assert next_wake(conn) == MINUTE
    clock.advance(seconds=1)
    assert next_wake(conn) == MINUTE - timedelta(seconds=1)


def test_next_wake_it_writes_nothing(conn: psycopg.Connection) -> None:
    """It works in a read-only transaction."""
    add(conn)
    conn.execute("set transaction_read_only = on")
    assert next_wake(conn) == NOW


@pytest.mark.parametrize("queues", [None, [], [None], ["a", None]])
def test_bad_queues_are_refused(conn: psycopg.Connection, queues: Any) -> None:
    """RQ001, naming this function."""
    error = refused(conn, "reproq_next_wake", queues=queues)
    assert error.sqlstate == "RQ001"
    assert "reproq_next_wake" in str(error)
