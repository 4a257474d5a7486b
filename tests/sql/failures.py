"""The ways into a failed final state, each for a task that was just claimed."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from tests.sql.calls import (
    Row,
    cancel,
    claim,
    complete,
    fail_for_good,
    reclaim,
    release,
    update,
)
from tests.support.database import Clock

Failure = Callable[[psycopg.Connection, Clock, Row], None]


def by_fail(conn: psycopg.Connection, _: Clock, got: Row) -> None:
    fail_for_good(conn, got)


def by_reclaim(conn: psycopg.Connection, clock: Clock, got: Row) -> None:
    update(conn, got.result_id, max_attempts=1)
    clock.advance(minutes=5)
    assert reclaim(conn)[got.result_id] == "failed"


def by_cancel_while_running(conn: psycopg.Connection, _: Clock, got: Row) -> None:
    cancel(conn, got.result_id)
    release(conn, got)


def by_cancel_before_start(conn: psycopg.Connection, _: Clock, got: Row) -> None:
    release(conn, got)
    assert cancel(conn, got.result_id) == "cancelled"


def by_expiry_at_claim(conn: psycopg.Connection, clock: Clock, got: Row) -> None:
    release(conn, got)
    update(conn, got.result_id, expires_at=clock.now)
    release(conn, *claim(conn, 1))


def by_expiry_at_reclaim(conn: psycopg.Connection, clock: Clock, got: Row) -> None:
    release(conn, got)
    update(conn, got.result_id, expires_at=clock.now)
    assert reclaim(conn)[got.result_id] == "failed"


def by_flag_of_django(conn: psycopg.Connection, _: Clock, got: Row) -> None:
    release(conn, got)
    update(conn, got.result_id, cancel_requested=True)
    release(conn, *claim(conn, 1))


def by_hand_failed(conn: psycopg.Connection, _: Clock, got: Row) -> None:
    update(conn, got.result_id, status="FAILED")


def by_hand_cancelled(conn: psycopg.Connection, _: Clock, got: Row) -> None:
    update(conn, got.result_id, status="CANCELLED")


FAILURES: list[Failure] = [
    by_fail,
    by_reclaim,
    by_cancel_while_running,
    by_cancel_before_start,
    by_expiry_at_claim,
    by_expiry_at_reclaim,
    by_flag_of_django,
    by_hand_failed,
    by_hand_cancelled,
]


def run_next(conn: psycopg.Connection) -> int:
    """Claim one task and complete it."""
    (got,) = claim(conn, 1)
    assert complete(conn, got) == ["ok"]
    return int(got.result_id)
