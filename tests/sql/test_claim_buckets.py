"""reproq_claim: token buckets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.calls import (
    add,
    add_many,
    claim,
    claimed,
    claimed_ids,
    limit_set,
    next_wake,
    update,
)
from tests.support.database import Clock


def test_buckets_empty_bucket_blocks_no_other(conn: psycopg.Connection, clock: Clock) -> None:
    """Throttled tasks at the head are skipped; the unlimited ones behind are claimed."""
    limit_set(conn, "task:app.tasks.slow", 1, 1)
    slow = add_many(conn, 30, task_path="app.tasks.slow", priority=9)
    fast = add_many(conn, 5)
    assert claimed_ids(conn, 4) == [slow[0], *fast[:3]]
    assert claimed_ids(conn, 4) == fast[3:]
    clock.advance(seconds=1)
    assert claimed_ids(conn, 4) == [slow[1]]


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [
        ([], 9),
        ([("global", 1, 4)], 4),
        ([("global", 1, 4), ("queue:default", 1, 5)], 5),
        ([("global", 1, 4), ("queue:default", 1, 5), (f"task:{'app.tasks.run'}", 1, 6)], 6),
        ([("global", 1, 4), ("queue:default", 0, 1)], 9),  # rate 0 = no limit
        ([("queue:default", 1, 5), ("task:app.tasks.run", 0, 1)], 9),
        ([("queue:default", 1, 5), ("task:app.tasks.other", 0, 1)], 5),
        ([("queue:other", 1, 1), ("task:app.tasks.other", 1, 1)], 9),
        ([("global", 0, 1)], 9),
    ],
)
def test_buckets_most_specific_bucket_applies(
    conn: psycopg.Connection, limits: list[tuple[str, float, int]], admitted: int
) -> None:
    """task > queue > global; rate 0 exempts from the wider ones; a new bucket is full; set before or after enqueue."""
    early = add_many(conn, 4)
    for key, rate, burst in limits:
        limit_set(conn, key, rate, burst)
    late = add_many(conn, 5)
    assert claimed_ids(conn, 20) == (early + late)[:admitted]


def test_buckets_wrong_label_is_mended_and_charged_right(conn: psycopg.Connection, clock: Clock) -> None:
    """The claim charges the bucket that applies, whatever limit_key says."""
    limit_set(conn, "task:app.tasks.run", 1, 2)
    limit_set(conn, "queue:default", 1, 1)
    ids = add_many(conn, 4)
    for result_id in ids:
        update(conn, result_id, limit_key="")
    got = [result_id for _ in range(4) for result_id in claimed_ids(conn)]
    assert got == ids[:2]
    clock.advance(seconds=2)
    assert claimed_ids(conn) == ids[2:]


def test_bucket_is_exact_by_the_clock(conn: psycopg.Connection, clock: Clock) -> None:
    """Admitted in any window: burst + rate x window, no more and no fewer; the level is capped at the burst."""
    limit_set(conn, "queue:default", 2, 3)
    add_many(conn, 50)
    admitted = []
    for _ in range(12):
        admitted.append(len(claim(conn, 50)))
        clock.advance(seconds=0.25)
    assert admitted == [3, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    clock.advance(hours=1)
    assert len(claim(conn, 50)) == 3


def test_buckets_clock_that_steps_back_refills_nothing(conn: psycopg.Connection, clock: Clock) -> None:
    """Never backwards: what flowed in once does not flow in again."""
    limit_set(conn, "queue:default", 1, 5)
    add_many(conn, 20, enqueued_at=clock.now - timedelta(hours=1))
    assert len(claim(conn)) == 5
    start = clock.now
    clock.set(start - timedelta(minutes=10))
    assert len(claim(conn)) == 0
    clock.set(start + timedelta(seconds=1))
    assert len(claim(conn)) == 1


@pytest.mark.parametrize("rate", [0.001, 0.1, 1 / 3, 0.7, 1, 3, 7, 11.3, 60, 999.9])
def test_buckets_token_is_there_when_next_wake_says(conn: psycopg.Connection, clock: Clock, rate: float) -> None:
    """A worker that sleeps exactly until the next token finds it, ten times over."""
    limit_set(conn, "queue:default", rate, 1)
    ids = add_many(conn, 11)
    assert claimed_ids(conn, lease="30 days") == ids[:1]
    for result_id in ids[1:]:
        wake = next_wake(conn)
        assert wake is not None
        assert 0 < wake.total_seconds() <= 1.001 / rate + 0.000002
        clock.set(clock.now + wake)
        assert claimed_ids(conn, lease="30 days") == [result_id]


def test_tokens_are_shared_by_a_claim_over_several_queues(conn: psycopg.Connection) -> None:
    """A global bucket of three gives three tasks in all, in the order of turns."""
    limit_set(conn, "global", 1, 3)
    a, b = add_many(conn, 3, queue_name="a"), add_many(conn, 3, queue_name="b")
    assert claimed_ids(conn, 6, queues=["a", "b"]) == [a[0], b[0], a[1]]
    assert claim(conn, queues=["a", "b"]) == []


def test_buckets_task_that_does_not_start_costs_no_token(conn: psycopg.Connection, clock: Clock) -> None:
    """Blocked, expired and cancelled candidates leave the tokens to the others."""
    claimed(conn, lock_key="k")
    limit_set(conn, "queue:default", 0.001, 2)
    add(conn, lock_key="k", priority=9)
    add(conn, expires_at=clock.now, priority=9)
    add(conn, cancel_requested=True, priority=9)
    ids = add_many(conn, 3)
    assert [t for _ in range(4) for t in claimed_ids(conn)] == ids[:2]


@pytest.mark.parametrize("blocked_by", ["lock_key", "suspicion", "cancel_requested"])
def test_buckets_last_token_goes_to_the_next_that_can_start(
    conn: psycopg.Connection, clock: Clock, blocked_by: str
) -> None:
    """A blocked head gives its token on within the claim, however few tokens there are."""
    assert claimed(conn, lock_key="k").lease_token
    limit_set(conn, "queue:default", 0.001, 1)
    heads: dict[str, dict[str, Any]] = {
        "lock_key": {"lock_key": "k"},
        "suspicion": {"lost_count": 2},
        "cancel_requested": {"cancel_requested": True},
    }
    add_many(conn, 3, **heads[blocked_by])
    ids = add_many(conn, 2)
    assert claimed_ids(conn) == ids[:1]


def test_tokens_given_in_one_look_are_not_given_in_the_next(conn: psycopg.Connection) -> None:
    """The second look of a claim fills no room with tasks that its bucket cannot pay for any more."""
    claimed(conn, lock_key="k")
    limit_set(conn, "task:app.tasks.slow", 0.001, 3)
    slow = {"task_path": "app.tasks.slow", "priority": 9}
    add(conn, lock_key="k", **slow)
    paid = add_many(conn, 9, **slow)
    add_many(conn, 2, lock_key="k")
    free = add_many(conn, 9)
    assert claimed_ids(conn, 6) == [*paid[:2], free[0], paid[2], *free[1:3]]


def test_buckets_what_a_bucket_does_not_pay_for_takes_no_turn(conn: psycopg.Connection) -> None:
    """Two queues share a claim half and half, though most candidates of one have no token."""
    limit_set(conn, "task:app.tasks.slow", 0.001, 1)
    slow = add_many(conn, 20, queue_name="a", task_path="app.tasks.slow", priority=1)
    a, b = add_many(conn, 20, queue_name="a"), add_many(conn, 20, queue_name="b")
    assert claimed_ids(conn, 6, queues=["a", "b"]) == [slow[0], b[0], a[0], b[1], a[1], b[2]]
