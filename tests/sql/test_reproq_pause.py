"""reproq_pause, reproq_resume: the switch of a queue."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest

from tests.sql.calls import add, call, claimed_ids, refused, rows
from tests.support.database import Clock


def test_pausing_twice_keeps_the_first_time(conn: psycopg.Connection, clock: Clock) -> None:
    """A new reason may be given; since when, and the reason when none is given, stay."""
    call(conn, "reproq_pause", queue_name="q", reason="deploy")
    start = clock.now
    clock.advance(minutes=1)
    call(conn, "reproq_pause", queue_name="q", reason="still")
    call(conn, "reproq_pause", queue_name="q")
    (row,) = rows(conn, "select * from reproq_queue_controls")
    assert (row.queue_name, row.paused, row.paused_at, row.reason) == ("q", True, start, "still")
    assert row.updated_at == clock.now


def test_resuming_clears_the_pause(conn: psycopg.Connection, clock: Clock) -> None:
    """The row stays, without time and reason; the next pause counts again; resuming again changes nothing."""
    call(conn, "reproq_pause", queue_name="q", reason="deploy")
    clock.advance(minutes=1)
    call(conn, "reproq_resume", queue_name="q")
    (row,) = rows(conn, "select * from reproq_queue_controls")
    assert (row.paused, row.paused_at, row.reason, row.updated_at) == (False, None, None, clock.now)
    clock.advance(minutes=1)
    call(conn, "reproq_resume", queue_name="q")
    call(conn, "reproq_resume", queue_name="never paused")
    assert rows(conn, "select * from reproq_queue_controls") == [row]
    call(conn, "reproq_pause", queue_name="q")
    (row,) = rows(conn, "select * from reproq_queue_controls")
    assert (row.paused, row.paused_at, row.reason) == (True, clock.now, None)


def test_pause_switch_written_by_django_counts(conn: psycopg.Connection) -> None:
    """The row counts, also when another program wrote it."""
    conn.execute("insert into reproq_queue_controls (queue_name, paused) values ('default', true)")
    result_id = add(conn)
    assert claimed_ids(conn) == []
    conn.execute("delete from reproq_queue_controls")
    assert claimed_ids(conn) == [result_id]


@pytest.mark.parametrize("function", ["reproq_pause", "reproq_resume"])
@pytest.mark.parametrize("queue_name", [None, ""])
def test_pause_queue_needs_a_name(conn: psycopg.Connection, function: LiteralString, queue_name: Any) -> None:
    """RQ001."""
    assert refused(conn, function, queue_name=queue_name).sqlstate == "RQ001"


def test_pause_name_that_no_queue_can_have_is_refused(conn: psycopg.Connection) -> None:
    """RQ001 instead of an index's error."""
    assert refused(conn, "reproq_pause", queue_name="x" * 513).sqlstate == "RQ001"
    call(conn, "reproq_pause", queue_name="x" * 512)
