"""A Go worker that still runs during a swap, on our schema and together with our functions."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from tests.sql.calls import (
    MINUTE,
    add,
    add_many,
    chain,
    chord,
    claim,
    claimed,
    claimed_ids,
    complete,
    fail,
    heartbeat,
    kind,
    reclaim,
    statuses,
    task,
    workflow,
)
from tests.sql.go_worker import GoWorker
from tests.support.database import Clock


@pytest.fixture
def go(conn: psycopg.Connection, clock: Clock) -> GoWorker:
    """A Go worker on the session of `conn`."""
    return GoWorker(conn, clock)


def test_go_worker_it_claims_renews_and_finishes(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """A task of its own from start to end; the row fits our constraints all the time."""
    result_id = add(conn)
    got = go.claim()
    assert got is not None
    assert (got.result_id, got.lease_token is not None, got.leased_by) == (result_id, True, "go-1")
    assert claim(conn) == []
    clock.advance(seconds=30)
    assert go.renew(result_id)
    after = task(conn, result_id)
    assert (after.lease_token, after.leased_until) == (got.lease_token, clock.now + MINUTE)
    assert go.succeed(result_id)
    row = task(conn, result_id)
    assert (row.status, row.return_json, row.lease_token) == ("SUCCESSFUL", 1, None)
    assert not go.succeed(result_id)


def test_its_renewals_keep_our_reclaim_away(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """And when it dies, we reclaim its task."""
    result_id = add(conn)
    go.claim()
    clock.advance(seconds=50)
    go.renew(result_id)
    clock.advance(seconds=50)
    assert reclaim(conn) == {}
    clock.advance(seconds=50)
    assert reclaim(conn) == {result_id: "ready"}
    assert not go.renew(result_id)
    assert not go.succeed(result_id)


def test_go_worker_it_reclaims_ours(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """Our attempt is lost then, and the task is claimable by both."""
    got = claimed(conn, queue_name="default")
    clock.advance(minutes=2)
    assert go.reclaim() == 1
    assert heartbeat(conn, got) == {got.result_id: "lost"}
    again = go.claim()
    assert again is not None
    assert (again.result_id, again.attempts) == (got.result_id, 2)
    assert complete(conn, got) == ["lost"]


def test_ours_cannot_end_its_attempt(conn: psycopg.Connection, go: GoWorker) -> None:
    """Nor can a stale attempt of ours, though the worker id repeats."""
    old = claimed(conn, queue_name="default")
    conn.execute("select * from reproq_release(array[%s]::bigint[], array[%s])", [old.result_id, old.lease_token])
    go.name = "w1"
    go.claim()
    assert complete(conn, old) == ["lost"]
    assert [row.answer for row in fail(conn, old)] == ["already"]
    assert heartbeat(conn, old, worker="w2") == {old.result_id: "lost"}
    assert go.succeed(old.result_id)


def test_its_ends_carry_chains_forward(conn: psycopg.Connection, go: GoWorker) -> None:
    """Success starts the next step, failure ends the rest."""
    first, second, third = chain(conn, 3)
    go.claim()
    go.succeed(first)
    assert statuses(conn, [second, third]) == ["READY", "WAITING"]
    go.claim()
    go.fail(second)
    assert kind(conn, third) == "parent_failed"


def test_its_ends_carry_chords_forward(conn: psycopg.Connection, go: GoWorker) -> None:
    """Members ended by it and by us count alike."""
    workflow_id, members, callback = chord(conn, 2)
    go.claim()
    (ours,) = claim(conn)
    go.succeed(members[0])
    complete(conn, ours)
    assert (workflow(conn, workflow_id).status, task(conn, callback).status) == ("WAITING_CALLBACK", "READY")


def test_go_worker_lock_key_excludes_across_both(conn: psycopg.Connection, go: GoWorker) -> None:
    """Its holder keeps ours out and the other way round; the end of either unblocks the next one."""
    first, second, third = add_many(conn, 3, lock_key="k")
    go.claim()
    assert claim(conn) == []
    go.succeed(first)
    assert claimed_ids(conn) == [second]
    assert go.claim() is None
    conn.execute("update task_runs set status = 'SUCCESSFUL' where result_id = %s", [second])
    got = go.claim()
    assert got is not None
    assert (got.result_id, got.blocked_on) == (third, "")


def test_go_worker_concurrency_limit_counts_both(conn: psycopg.Connection, go: GoWorker) -> None:
    """Its tasks have no numbered place, and count all the same."""
    ids = add_many(conn, 4, concurrency_key="c", concurrency_limit=2)
    go.claim()
    assert claimed_ids(conn) == [ids[1]]
    assert go.claim() is None
    go.succeed(ids[0])
    assert claimed_ids(conn) == [ids[2]]
    assert go.claim() is None


def test_go_worker_it_takes_a_blocked_task(conn: psycopg.Connection, go: GoWorker) -> None:
    """Blocking is ours: it does not know of it, and the row fits."""
    holder = claimed(conn, lock_key="k")
    blocked = add(conn, lock_key="k")
    claim(conn)
    conn.execute("set local session_replication_role = replica")
    conn.execute("delete from task_runs where result_id = %s", [holder.result_id])
    conn.execute("set local session_replication_role = origin")
    got = go.claim()
    assert got is not None
    assert (got.result_id, got.blocked_on) == (blocked, "")


def test_its_retries_come_back(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """READY with a run_after: we claim it when it is due, and the key was free in between."""
    first, second = add_many(conn, 2, lock_key="k")
    go.claim()
    assert claim(conn) == []
    assert go.retry_later(first)
    (got,) = claim(conn)
    assert got.result_id == second
    complete(conn, got)
    clock.advance(minutes=1)
    (again,) = claim(conn)
    assert (again.result_id, again.attempts) == (first, 2)


def test_used_up_attempts_that_it_gives_back_do_not_block(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """It reclaims without looking at max_attempts; READY with all attempts used starts afresh."""
    result_id = add(conn, max_attempts=1)
    go.claim()
    clock.advance(minutes=2)
    assert go.reclaim() == 1
    row = task(conn, result_id)
    assert (row.status, row.attempts) == ("READY", 0)
    assert claimed_ids(conn) == [result_id]


def test_its_heartbeat_list_is_not_ours(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """Our heartbeats do not call its tasks unknown, even long after."""
    add(conn)
    go.claim()
    clock.advance(seconds=59)
    go.renew(1)
    assert heartbeat(conn, worker="w1") == {}


def test_go_worker_it_expires_nothing_but_we_do(conn: psycopg.Connection, clock: Clock, go: GoWorker) -> None:
    """An expired task it has not claimed yet ends at our next reclaim."""
    result_id = add(conn, expires_at=clock.now + timedelta(seconds=1))
    clock.advance(seconds=2)
    assert reclaim(conn) == {result_id: "failed"}
    assert go.claim() is None
