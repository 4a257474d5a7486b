"""reproq_heartbeat: renewals, what a worker is told, unknown leases, and the list of workers."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.calls import (
    MINUTE,
    add,
    add_many,
    call,
    cancel,
    claim,
    claimed,
    complete,
    heartbeat,
    reclaim,
    refused,
    release,
    rows,
    statuses,
    task,
    update,
)
from tests.support.database import Clock

NO_TOKEN = uuid.UUID(int=0)


def test_heartbeat_lease_is_renewed_from_now(conn: psycopg.Connection, clock: Clock) -> None:
    """ok: the lease ends p_lease from now by the database's clock; nothing else of the task changes."""
    got = claimed(conn)
    before = task(conn, got.result_id)
    clock.advance(seconds=40)
    assert heartbeat(conn, got, lease=timedelta(seconds=90)) == {got.result_id: "ok"}
    after = task(conn, got.result_id)
    assert after.leased_until == clock.now + timedelta(seconds=90)
    assert after._replace(leased_until=None, revision=0) == before._replace(leased_until=None, revision=0)


def test_heartbeat_renewal_never_shortens_a_lease(conn: psycopg.Connection) -> None:
    """A shorter lease, or a clock that stepped back, keeps the later end."""
    got = claimed(conn)
    before = task(conn, got.result_id).leased_until
    assert heartbeat(conn, got, lease=timedelta(seconds=1)) == {got.result_id: "ok"}
    assert task(conn, got.result_id).leased_until == before


def test_heartbeat_expired_lease_that_was_not_reclaimed_is_renewed(conn: psycopg.Connection, clock: Clock) -> None:
    """The token fits, so the attempt goes on; after a reclaim it is lost."""
    a, b = claimed(conn), add(conn)
    (other,) = claim(conn, 1, worker="w2")
    clock.advance(minutes=5)
    assert heartbeat(conn, a)[a.result_id] == "ok"
    assert reclaim(conn) == {b: "ready"}
    assert heartbeat(conn, other, worker="w2") == {b: "lost"}


def test_heartbeat_cancel_request_is_told_and_the_lease_renewed(conn: psycopg.Connection, clock: Clock) -> None:
    """cancel: stop it, but take the time that needs."""
    got = claimed(conn)
    cancel(conn, got.result_id)
    clock.advance(seconds=30)
    assert heartbeat(conn, got) == {got.result_id: "cancel"}
    assert task(conn, got.result_id).leased_until == clock.now + MINUTE


def test_lost_is_whatever_is_not_this_attempt(conn: psycopg.Connection) -> None:
    """Released, reclaimed by another, unknown ids, wrong and null tokens; already for a success. None is renewed."""
    done, back = claimed(conn), claimed(conn)
    complete(conn, done)
    release(conn, back)
    (again,) = claim(conn, 1, queues=[back.queue_name], worker="other")
    before = task(conn, again.result_id)
    ids = [done.result_id, back.result_id, again.result_id, 0, -1, 2**63 - 1]
    tokens = [done.lease_token, back.lease_token, NO_TOKEN, NO_TOKEN, NO_TOKEN, None]
    answers = call(conn, "reproq_heartbeat", worker_id="w1", result_ids=ids, lease_tokens=tokens, lease="2 h")
    assert [row.answer for row in answers] == ["already", *["lost"] * 5]
    assert task(conn, again.result_id) == before


def test_heartbeat_one_answer_per_element_in_order(conn: psycopg.Connection) -> None:
    """Repeats included, a thousand at once."""
    add_many(conn, 500)
    got = claim(conn, 500)
    batch = [*reversed(got), *got]
    answers = call(
        conn,
        "reproq_heartbeat",
        worker_id="w1",
        result_ids=[t.result_id for t in batch],
        lease_tokens=[t.lease_token for t in batch],
        lease="1 h",
    )
    assert [row.result_id for row in answers] == [t.result_id for t in batch]
    assert {row.answer for row in answers} == {"ok"}


@pytest.mark.parametrize(("lease", "patience"), [(timedelta(minutes=5), 20.0), (timedelta(seconds=10), 5.0)])
def test_heartbeat_claim_whose_reply_was_lost_comes_back(
    conn: psycopg.Connection, clock: Clock, lease: timedelta, patience: float
) -> None:
    """unknown: told at once, released uncharged once older than min(lease / 2, 20 s)."""
    incarnation = uuid.uuid4()
    held, unknown = [add(conn, max_attempts=1) for _ in range(2)]
    got = {t.result_id: t for t in claim(conn, lease=lease, incarnation=incarnation)}

    def beat() -> dict[int, str]:
        return heartbeat(conn, got[held], lease=lease, incarnation=incarnation)

    assert beat() == {held: "ok", unknown: "unknown"}
    clock.advance(seconds=patience)
    assert beat() == {held: "ok", unknown: "unknown"}
    assert statuses(conn, [unknown]) == ["RUNNING"]
    clock.advance(seconds=0.001)
    assert beat() == {held: "ok", unknown: "unknown"}
    row = task(conn, unknown)
    assert (row.status, row.attempts, row.lost_count, row.last_answer) == ("READY", 0, 0, "released")
    assert beat() == {held: "ok"}
    assert complete(conn, got[unknown]) == ["lost"]


def test_heartbeat_what_other_starts_and_other_workers_hold_is_not_unknown(
    conn: psycopg.Connection, clock: Clock
) -> None:
    """A restart under the same name is not taken for its predecessor; a Go worker's tasks have no incarnation."""
    mine, before_restart = uuid.uuid4(), uuid.uuid4()
    ids = add_many(conn, 4)
    claim(conn, 1, incarnation=before_restart)
    claim(conn, 1, worker="w2", incarnation=mine)
    update(conn, ids[2], status="RUNNING", leased_by="w1", leased_until=clock.now + MINUTE)
    (got,) = claim(conn, 1, incarnation=mine)
    clock.advance(seconds=50)
    assert heartbeat(conn, got, incarnation=mine) == {got.result_id: "ok"}
    assert set(statuses(conn, ids)) == {"RUNNING"}


def test_heartbeat_cancelled_unknown_lease_does_not_start_again(conn: psycopg.Connection, clock: Clock) -> None:
    """It is not given back to be run: it ends, by its lease at the latest."""
    incarnation = uuid.uuid4()
    unknown = add(conn)
    claim(conn, incarnation=incarnation)
    cancel(conn, unknown)
    clock.advance(seconds=30)
    assert heartbeat(conn, incarnation=incarnation) == {unknown: "unknown"}
    assert claim(conn) == []
    clock.advance(minutes=5)
    reclaim(conn)
    assert task(conn, unknown).status == "FAILED"


def test_heartbeat_null_ids_do_not_hide_unknown_leases(conn: psycopg.Connection) -> None:
    """A null among the ids is lost; the rest of the call works."""
    unknown = add(conn)
    claim(conn)
    answers = call(conn, "reproq_heartbeat", worker_id="w1", result_ids=[None], lease_tokens=[NO_TOKEN], lease=MINUTE)
    assert [(row.result_id, row.answer) for row in answers] == [(None, "lost"), (unknown, "unknown")]


def test_heartbeat_keeps_the_worker_on_the_list(conn: psycopg.Connection, clock: Clock) -> None:
    """last_seen_at is now; a row that was pruned comes back."""
    call(conn, "reproq_register_worker", worker_id="w1", hostname="h", concurrency=4, queues=["a", "b"], version="1")
    clock.advance(seconds=30)
    heartbeat(conn)
    (row,) = rows(conn, "select * from reproq_workers")
    assert (row.worker_id, row.hostname, row.last_seen_at) == ("w1", "h", clock.now)
    conn.execute("delete from reproq_workers")
    incarnation = uuid.uuid4()
    heartbeat(conn, incarnation=incarnation)
    (row,) = rows(conn, "select * from reproq_workers")
    assert (row.worker_id, row.last_seen_at, row.incarnation) == ("w1", clock.now, incarnation)


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        ("worker_id", None),
        ("worker_id", ""),
        ("worker_id", uuid.uuid4().hex * 100),
        ("result_ids", None),
        ("lease_tokens", None),
        ("lease_tokens", [NO_TOKEN]),
        ("lease", None),
        ("lease", "0"),
        ("lease", "-1 s"),
        ("lease", "infinity"),
        ("lease", "31 days"),
    ],
)
def test_bad_arguments_are_refused_by_name(conn: psycopg.Connection, argument: str, bad: Any) -> None:
    """RQ001, and the message says which function."""
    arguments = {"worker_id": "w", "result_ids": [], "lease_tokens": [], "lease": MINUTE, argument: bad}
    error = refused(conn, "reproq_heartbeat", **arguments)
    assert error.sqlstate == "RQ001"
    assert "reproq_heartbeat" in str(error)


def test_registering_gives_each_start_its_own_incarnation(conn: psycopg.Connection, clock: Clock) -> None:
    """A restart under the same name overwrites the row and gets a new id; odd values do not stop a worker."""

    def register(**more: Any) -> uuid.UUID:
        arguments = {"worker_id": "w", "hostname": "h", "concurrency": 4, "queues": ["a"], "version": "1", **more}
        ((incarnation,),) = call(conn, "reproq_register_worker", **arguments)
        found: uuid.UUID = incarnation
        return found

    first = register()
    clock.advance(minutes=1)
    second = register(hostname=None, concurrency=None, queues=None, version=None)
    (row,) = rows(conn, "select * from reproq_workers")
    assert first != second == row.incarnation
    assert (row.hostname, row.concurrency, row.queues, row.version) == ("", 0, [], None)
    assert row.started_at == row.last_seen_at == clock.now


def test_heartbeat_worker_that_stops_leaves_the_registry(conn: psycopg.Connection) -> None:
    """By its own incarnation only: the end of a predecessor does not take away its successor."""
    arguments = {"worker_id": "w", "hostname": "h", "concurrency": 4, "queues": ["a"], "version": "1"}
    ((first,),) = call(conn, "reproq_register_worker", **arguments)
    ((second,),) = call(conn, "reproq_register_worker", **arguments)
    assert call(conn, "reproq_unregister_worker", worker_id="w", incarnation=first) == [(False,)]
    assert rows(conn, "select worker_id from reproq_live_workers") == [("w",)]
    assert call(conn, "reproq_unregister_worker", worker_id="w", incarnation=second) == [(True,)]
    assert rows(conn, "select worker_id from reproq_workers") == []


@pytest.mark.parametrize("worker_id", [None, "", uuid.uuid4().hex * 100])
def test_heartbeat_worker_needs_a_name(conn: psycopg.Connection, worker_id: str | None) -> None:
    """RQ001, also for a name that no index could hold."""
    error = refused(
        conn, "reproq_register_worker", worker_id=worker_id, hostname="h", concurrency=1, queues=["a"], version="1"
    )
    assert error.sqlstate == "RQ001"
