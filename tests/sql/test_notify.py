"""The bell: who is rung on which channel, with what, and when not. A listener hears what other sessions commit."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    add,
    add_many,
    call,
    cancel,
    chain,
    claim,
    complete,
    fail,
    heartbeat,
    limit_set,
    reclaim,
    release,
    retry,
    update,
    value,
)
from tests.support.database import Database, create_database, drop_database

Rung = list[tuple[str, str]]


class Listener:
    """A session that LISTENs on both channels, and one whose transactions it hears."""

    def __init__(self, database: Database) -> None:
        self.ear = database.connect()
        self.ear.execute("listen reproq_ready; listen reproq_control; listen all_heard")
        self.conn = database.connect(autocommit=False)

    def heard(self) -> Rung:
        """Commits, and what was rung since the last time, as (channel, payload), sorted."""
        self.conn.commit()
        self.conn.execute("select pg_notify('all_heard', '')")
        self.conn.commit()
        rung: Rung = []
        for notify in self.ear.notifies(timeout=10):
            if notify.channel == "all_heard":
                return sorted(rung)
            rung.append((notify.channel.removeprefix("reproq_"), notify.payload))
        raise AssertionError("the end mark was not heard within 10 s")

    def close(self) -> None:
        self.conn.close()
        self.ear.close()


@pytest.fixture(scope="module")
def listener(server_dsn: str, template: Database) -> Iterator[Listener]:
    """One pair of sessions for this module: its tests commit, each to queues of its own."""
    database = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    pair = Listener(database)
    yield pair
    pair.close()
    drop_database(server_dsn, database.name)


@pytest.fixture
def bell(listener: Listener) -> Iterator[Listener]:
    """The pair, silent; afterwards all tasks are gone."""
    yield listener
    listener.conn.rollback()
    listener.conn.execute("truncate task_runs, workflow_runs, reproq_queue_controls")
    listener.conn.execute("delete from rate_limits where key <> 'global'")
    listener.heard()


def queued(*queues: str) -> Rung:
    """Rings for these queues."""
    return sorted(("ready", queue) for queue in queues)


def control(**message: Any) -> tuple[str, dict[str, Any]]:
    """A message to the workers."""
    return ("control", message)


def messages(rung: Rung) -> list[tuple[str, Any]]:
    """Control messages parsed, rings as they are."""
    return [(channel, json.loads(payload) if channel == "control" else payload) for channel, payload in rung]


def test_an_insert_rings_once_per_queue(bell: Listener) -> None:
    """However many tasks and statements of a transaction; nothing before the commit, nothing after a rollback."""
    for queue in ("a", "b", "a"):
        add_many(bell.conn, 3, queue_name=queue)
    assert bell.heard() == queued("a", "b")
    add(bell.conn, queue_name="a")
    bell.conn.rollback()
    assert bell.heard() == []


def test_future_tasks_ring_and_others_do_not(bell: Listener) -> None:
    """A sleeper must shorten its timer for a future task; WAITING, RUNNING and final rows wake nobody."""
    add(bell.conn, queue_name="future", run_after="9999-01-01")
    for status in ("WAITING", "RUNNING", "SUCCESSFUL", "FAILED", "CANCELLED"):
        add(bell.conn, queue_name="none", status=status)
    assert bell.heard() == queued("future")


def test_a_parked_insert_rings(bell: Listener) -> None:
    """Born parked: its bell makes a claim look, should the eight before it be gone."""
    add_many(bell.conn, 8, lock_key="k")
    bell.heard()
    parked = add(bell.conn, lock_key="k")
    assert value(bell.conn, "select parked_on from task_runs where result_id = %s", [parked]) == "l:k"
    assert bell.heard() == queued("default")


@pytest.mark.parametrize(
    ("name", "payload"), [("q" * 200, "q" * 200), ("q" * 201, ""), ("ä" * 101, ""), ("\U0001f600'\"", "\U0001f600'\"")]
)
def test_a_long_name_rings_for_any_queue(bell: Listener, name: str, payload: str) -> None:
    """Payload '' = any queue, for names longer than 200 bytes."""
    add(bell.conn, queue_name=name)
    assert bell.heard() == queued(payload)


def test_working_rings_nobody(bell: Listener) -> None:
    """Claim, park, heartbeat, complete and a final failure of plain tasks are no news to sleepers."""
    add_many(bell.conn, 4)
    add_many(bell.conn, 2, lock_key="k")
    bell.heard()
    got = claim(bell.conn)
    assert bell.heard() == []
    heartbeat(bell.conn, *got)
    assert bell.heard() == []
    complete(bell.conn, got[0], got[1])
    fail(bell.conn, got[2], retryable=False)
    assert bell.heard() == []
    call(bell.conn, "reproq_next_wake", queues=["default"])
    assert claim(bell.conn) == []
    assert reclaim(bell.conn) == {}
    assert bell.heard() == []


def test_what_becomes_claimable_rings(bell: Listener) -> None:
    """Retry, release, operator's retry, reclaim: each rings for its queue."""
    add_many(bell.conn, 4, queue_name="q")
    got = claim(bell.conn, queues=["q"], lease=timedelta(milliseconds=1))
    bell.heard()
    fail(bell.conn, got[0])
    assert bell.heard() == queued("q")
    release(bell.conn, got[1])
    assert bell.heard() == queued("q")
    fail(bell.conn, got[2], retryable=False)
    assert bell.heard() == []
    retry(bell.conn, got[2].result_id)
    assert bell.heard() == queued("q")
    assert reclaim(bell.conn) == {got[3].result_id: "ready"}
    assert bell.heard() == queued("q")


def test_the_next_step_of_a_chain_rings(bell: Listener) -> None:
    """In the queue of the step."""
    steps = chain(bell.conn, 2)
    update(bell.conn, steps[1], queue_name="second")
    (got,) = claim(bell.conn)
    bell.heard()
    complete(bell.conn, got)
    assert bell.heard() == queued("second")


def test_a_key_that_becomes_free_rings_for_whoever_waits(bell: Listener) -> None:
    """One ring in each queue in which a task was parked on it."""
    add(bell.conn, lock_key="k", priority=9)
    for queue in ("a", "b"):
        add(bell.conn, lock_key="k", queue_name=queue)
    (got,) = claim(bell.conn)
    claim(bell.conn, queues=["a", "b"])
    bell.heard()
    complete(bell.conn, got)
    assert bell.heard() == queued("a", "b")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"queue_name": "elsewhere"}, queued("elsewhere")),
        ({"priority": 5}, queued("default")),
        ({"run_after": None}, queued("default")),
        ({"run_after": "2001-01-01"}, queued("default")),
        ({"run_after": "9999-02-01"}, []),
        ({"metadata_json": Jsonb({"a": 1})}, []),
        ({"cancel_requested": True}, []),
        ({"status": "WAITING"}, []),
        ({"status": "SUCCESSFUL"}, []),
    ],
)
def test_direct_updates_of_a_future_task(bell: Listener, change: dict[str, Any], expected: Rung) -> None:
    """Due earlier, or moved to another stream: rings. Due later, or of no interest: silent."""
    result_id = add(bell.conn, run_after="9999-01-01")
    bell.heard()
    update(bell.conn, result_id, **change)
    assert bell.heard() == expected


def test_a_direct_start_or_end_of_a_keyed_task_rings_for_any(bell: Listener) -> None:
    """It was not under the key's lock, so a claim must look again."""
    result_id = add(bell.conn, lock_key="k")
    claim(bell.conn)
    bell.heard()
    update(bell.conn, result_id, status="SUCCESSFUL")
    assert bell.heard() == queued("")


def test_deleting_an_unfinished_keyed_task_rings_for_any(bell: Listener) -> None:
    """Its key may be free now; a plain or finished task is nobody's loss."""
    keyed, plain, done = (
        add(bell.conn, lock_key="k"),
        add(bell.conn),
        add(bell.conn, lock_key="k", status="SUCCESSFUL"),
    )
    bell.heard()
    bell.conn.execute("delete from task_runs where result_id = any(%s)", [[plain, done]])
    assert bell.heard() == []
    bell.conn.execute("delete from task_runs where result_id = %s", [keyed])
    assert bell.heard() == queued("")


def test_a_cancel_tells_the_workers_once(bell: Listener) -> None:
    """{"op": "cancel", "id"} for a running task, by function or by Django's UPDATE; not again, not for others."""
    waiting = add(bell.conn, queue_name="later")
    add_many(bell.conn, 2)
    first, second = claim(bell.conn)
    bell.heard()
    cancel(bell.conn, first.result_id)
    assert messages(bell.heard()) == [control(op="cancel", id=first.result_id)]
    cancel(bell.conn, first.result_id)
    heartbeat(bell.conn, first, second)
    assert bell.heard() == []
    update(bell.conn, second.result_id, cancel_requested=True)
    assert messages(bell.heard()) == [control(op="cancel", id=second.result_id)]
    cancel(bell.conn, waiting)
    assert bell.heard() == []


def test_the_pause_switch_tells_the_workers(bell: Listener) -> None:
    """pause, resume (which also rings for the queue), by function, by Django's rows and by their deletion."""
    call(bell.conn, "reproq_pause", queue_name="q")
    assert messages(bell.heard()) == [control(op="pause", queue="q")]
    call(bell.conn, "reproq_resume", queue_name="q")
    assert messages(bell.heard()) == [control(op="resume", queue="q"), ("ready", "q")]
    call(bell.conn, "reproq_resume", queue_name="q")
    assert bell.heard() == []
    bell.conn.execute("update reproq_queue_controls set paused = true")
    assert messages(bell.heard()) == [control(op="pause", queue="q")]
    bell.conn.execute("delete from reproq_queue_controls")
    assert messages(bell.heard()) == [control(op="resume", queue="q"), ("ready", "q")]


def test_a_changed_limit_rings_for_any(bell: Listener) -> None:
    """Tokens may be there earlier than a sleeper thinks."""
    limit_set(bell.conn, "queue:q", 1, 1)
    assert bell.heard() == queued("")
    bell.conn.execute("select reproq_limit_rm('queue:q')")
    assert bell.heard() == queued("")


def test_the_bell_can_be_switched_off(bell: Listener) -> None:
    """reproq.bell = off for a session or transaction: no NOTIFY at all, on either channel; then on again."""
    bell.conn.execute("set local reproq.bell = off")
    add(bell.conn)
    call(bell.conn, "reproq_pause", queue_name="q")
    call(bell.conn, "reproq_resume", queue_name="q")
    limit_set(bell.conn, "queue:q", 1, 1)
    assert bell.heard() == []
    bell.conn.execute("set local reproq.bell = on")
    add(bell.conn)
    assert bell.heard() == queued("default")


def test_an_enqueue_that_finds_a_twin_rings_nobody(bell: Listener) -> None:
    """Nothing became claimable."""
    call(bell.conn, "reproq_enqueue", task_path="a.b")
    assert bell.heard() == queued("default")
    call(bell.conn, "reproq_enqueue", task_path="a.b")
    assert bell.heard() == []
