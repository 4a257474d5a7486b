"""Views for people: what they show, and where they stop."""

from __future__ import annotations

import psycopg
from psycopg.types.json import Jsonb

from tests.sql.calls import add, call, rows, value
from tests.support.database import Clock


def test_workers_live_for_five_minutes_after_the_last_sign(conn: psycopg.Connection, clock: Clock) -> None:
    """Then they are among the dead ones, and no longer."""
    call(conn, "reproq_register_worker", worker_id="w", hostname="h", concurrency=1, queues=["q"])
    start = clock.now
    for seconds, is_live in ((0, True), (299, True), (300, False), (301, False)):
        clock.set(start)
        clock.advance(seconds=seconds)
        assert value(conn, "select count(*) from reproq_live_workers") == is_live
        assert value(conn, "select count(*) from reproq_dead_workers") == (not is_live)


def test_failures_are_grouped_by_the_first_200_characters(conn: psycopg.Connection) -> None:
    """Whole messages may be long and all different."""
    for end in "ab":
        add(conn, status="FAILED", errors_json=Jsonb([{"kind": "app_error", "message": "x" * 300 + end}]))
    assert [(row.tasks, len(row.message)) for row in rows(conn, "select * from reproq_failures")] == [(2, 200)]
