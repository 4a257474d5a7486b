"""Tasks that lost their lease twice or more run alone, so that a crasher takes no neighbour with it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sql.calls import add, add_many, claim, claimed, claimed_ids, complete, task
from tests.support.database import Clock


def test_quarantine_quarantined_task_is_given_alone(conn: psycopg.Connection) -> None:
    """A worker that holds nothing gets the quarantined task and nothing else, though there is room and more to do."""
    quarantined = add(conn, lost_count=2, priority=9)
    other = add(conn)
    assert claimed_ids(conn) == [quarantined]
    assert claimed_ids(conn) == [], "a worker that runs a quarantined task takes nothing else"
    assert claimed_ids(conn, worker="w2") == [other]


def test_quarantine_worker_that_holds_something_passes_a_quarantined_task_by(conn: psycopg.Connection) -> None:
    """The quarantined task waits for an idle worker and blocks no other task; the others go on."""
    first, quarantined, third = add(conn), add(conn, lost_count=2), add(conn)
    assert claimed_ids(conn) == [first, third]
    assert claimed_ids(conn) == []
    assert claimed_ids(conn, worker="w2") == [quarantined]


def test_quarantine_backlog_of_quarantined_hides_nothing(conn: psycopg.Connection) -> None:
    """After two outages all that ran then stands first and wants to be alone: busy workers go on with the rest."""
    running = claimed(conn)
    quarantined = add_many(conn, 300, lost_count=2)
    others = add_many(conn, 20)
    assert claimed_ids(conn, 10) == others[:10]
    complete(conn, running)
    assert claimed_ids(conn, worker="w2") == quarantined[:1]


def test_another_start_under_the_same_name_is_another_worker(conn: psycopg.Connection) -> None:
    """What runs is asked of the incarnation, not of the name."""
    quarantined = add(conn, lost_count=2)
    one, two = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    assert claimed_ids(conn, incarnation=one) == [quarantined]
    late = add(conn)
    assert claimed_ids(conn, incarnation=one) == []
    assert claimed_ids(conn, incarnation=two) == [late]


def test_quarantine_when_the_quarantined_task_has_ended_its_worker_goes_on(conn: psycopg.Connection) -> None:
    """Isolation ends with the attempt."""
    add(conn, lost_count=2, priority=9)
    other = add(conn)
    (got,) = claim(conn)
    complete(conn, got)
    assert claimed_ids(conn) == [other]


def test_quarantine_one_lost_lease_is_no_suspicion(conn: psycopg.Connection) -> None:
    """A worker may die once for reasons of its own."""
    tasks = [add(conn, lost_count=1), add(conn)]
    assert claimed_ids(conn) == tasks


def test_quarantine_quarantined_task_does_not_wait_for_ever(conn: psycopg.Connection, clock: Clock) -> None:
    """Where no worker is ever idle it runs like any other after five minutes."""
    first = add(conn)
    assert claimed_ids(conn) == [first]
    quarantined = add(conn, lost_count=3)
    clock.advance(minutes=4)
    assert claimed_ids(conn) == []
    clock.advance(minutes=2)
    late = add(conn)
    assert claimed_ids(conn) == [quarantined, late]


@pytest.mark.parametrize("key", [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 1}])
def test_quarantine_quarantined_task_does_not_hold_back_those_blocked_on_its_key(
    conn: psycopg.Connection, key: dict[str, Any]
) -> None:
    """While it waits for an idle worker its key is free: the next one of the key runs, one at a time."""
    claimed(conn)
    holder = claimed(conn, **key)
    quarantined, *behind = add(conn, lost_count=2, **key), *add_many(conn, 3, **key)
    assert claimed_ids(conn) == []
    complete(conn, holder)
    (got,) = claim(conn)
    assert got.result_id == behind[0]
    complete(conn, got)
    assert claimed_ids(conn) == [behind[1]]
    assert task(conn, quarantined).status == "READY"
