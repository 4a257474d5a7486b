"""Notifications: which channel, which payload, and when none. A listener receives what other sessions commit."""

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

Received = list[tuple[str, str]]


class Listener:
    """A session that LISTENs on both channels, and one whose transactions it is notified of, waiting or not."""

    def __init__(self, database: Database) -> None:
        self.listening = database.connect()
        self.listening.execute("listen reproq_ready; listen reproq_control; listen all_received")
        self.conn = database.connect(autocommit=False)
        self.conn.execute("set reproq.notify = always")
        self.conn.commit()

    def received(self) -> Received:
        """Commits, and the notifications since the last time, as (channel, payload), sorted."""
        self.conn.commit()
        self.conn.execute("select pg_notify('all_received', '')")
        self.conn.commit()
        received: Received = []
        for notify in self.listening.notifies(timeout=10):
            if notify.channel == "all_received":
                return sorted(received)
            received.append((notify.channel.removeprefix("reproq_"), notify.payload))
        raise AssertionError("the end mark did not come within 10 s")

    def close(self) -> None:
        self.conn.close()
        self.listening.close()


@pytest.fixture(scope="module")
def shared_listener(server_dsn: str, template: Database) -> Iterator[Listener]:
    """One pair of sessions for this module: its tests commit, each to queues of its own."""
    database = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    pair = Listener(database)
    yield pair
    pair.close()
    drop_database(server_dsn, database.name)


@pytest.fixture
def listener(shared_listener: Listener) -> Iterator[Listener]:
    """The pair, with nothing to receive; afterwards all tasks are gone."""
    yield shared_listener
    shared_listener.conn.rollback()
    shared_listener.conn.execute("truncate task_runs, workflow_runs, reproq_queue_controls")
    shared_listener.conn.execute("delete from rate_limits where key <> 'global'")
    shared_listener.received()


def queued(*queues: str) -> Received:
    """Notifications for these queues."""
    return sorted(("ready", queue) for queue in queues)


def control(**message: Any) -> tuple[str, dict[str, Any]]:
    """A message to the workers."""
    return ("control", message)


def messages(received: Received) -> list[tuple[str, Any]]:
    """Control messages parsed, others as they are."""
    return [(channel, json.loads(payload) if channel == "control" else payload) for channel, payload in received]


def test_notify_insert_notifies_once_per_queue(listener: Listener) -> None:
    """However many tasks and statements of a transaction; nothing before the commit, nothing after a rollback."""
    for queue in ("a", "b", "a"):
        add_many(listener.conn, 3, queue_name=queue)
    assert listener.received() == queued("a", "b")
    add(listener.conn, queue_name="a")
    listener.conn.rollback()
    assert listener.received() == []


def test_future_tasks_notify_and_others_do_not(listener: Listener) -> None:
    """A sleeper must shorten its timer for a future task; WAITING, RUNNING and final rows wake no worker."""
    add(listener.conn, queue_name="future", run_after="9999-01-01")
    for status in ("WAITING", "RUNNING", "SUCCESSFUL", "FAILED", "CANCELLED"):
        add(listener.conn, queue_name="none", status=status)
    assert listener.received() == queued("future")


def test_notify_blocked_insert_notifies(listener: Listener) -> None:
    """Blocked by the insert: its notification wakes a claim, in case the eight before it are gone."""
    add_many(listener.conn, 8, lock_key="k")
    listener.received()
    blocked = add(listener.conn, lock_key="k")
    assert value(listener.conn, "select blocked_on from task_runs where result_id = %s", [blocked]) == "l:k"
    assert listener.received() == queued("default")


@pytest.mark.parametrize(
    ("name", "payload"), [("q" * 200, "q" * 200), ("q" * 201, ""), ("ä" * 101, ""), ("\U0001f600'\"", "\U0001f600'\"")]
)
def test_notify_long_name_notifies_any_queue(listener: Listener, name: str, payload: str) -> None:
    """Payload '' = any queue, for names longer than 200 bytes."""
    add(listener.conn, queue_name=name)
    assert listener.received() == queued(payload)


def test_working_notifies_no_worker(listener: Listener) -> None:
    """Claim, block, heartbeat, complete and a final failure of plain tasks are no news to sleepers."""
    add_many(listener.conn, 4)
    add_many(listener.conn, 2, lock_key="k")
    listener.received()
    got = claim(listener.conn)
    assert listener.received() == []
    heartbeat(listener.conn, *got)
    assert listener.received() == []
    complete(listener.conn, got[0], got[1])
    fail(listener.conn, got[2], retryable=False)
    assert listener.received() == []
    call(listener.conn, "reproq_next_wake", queues=["default"])
    assert claim(listener.conn) == []
    assert reclaim(listener.conn) == {}
    assert listener.received() == []


def test_notify_what_becomes_claimable_notifies(listener: Listener) -> None:
    """Retry, release, operator's retry, reclaim: each notifies its queue."""
    add_many(listener.conn, 4, queue_name="q")
    got = claim(listener.conn, queues=["q"], lease=timedelta(milliseconds=1))
    listener.received()
    fail(listener.conn, got[0])
    assert listener.received() == queued("q")
    release(listener.conn, got[1])
    assert listener.received() == queued("q")
    fail(listener.conn, got[2], retryable=False)
    assert listener.received() == []
    retry(listener.conn, got[2].result_id)
    assert listener.received() == queued("q")
    assert reclaim(listener.conn) == {got[3].result_id: "ready"}
    assert listener.received() == queued("q")


def test_notify_next_step_of_a_chain_notifies(listener: Listener) -> None:
    """In the queue of the step."""
    steps = chain(listener.conn, 2)
    update(listener.conn, steps[1], queue_name="second")
    (got,) = claim(listener.conn)
    listener.received()
    complete(listener.conn, got)
    assert listener.received() == queued("second")


def test_notify_key_that_becomes_free_notifies_its_queues(listener: Listener) -> None:
    """One notification for each queue in which a task was blocked on it."""
    add(listener.conn, lock_key="k", priority=9)
    for queue in ("a", "b"):
        add(listener.conn, lock_key="k", queue_name=queue)
    (got,) = claim(listener.conn)
    claim(listener.conn, queues=["a", "b"])
    listener.received()
    complete(listener.conn, got)
    assert listener.received() == queued("a", "b")


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
def test_direct_updates_of_a_future_task(listener: Listener, change: dict[str, Any], expected: Received) -> None:
    """Due earlier, or moved to another stream: notifies. Due later, or of no interest: does not."""
    result_id = add(listener.conn, run_after="9999-01-01")
    listener.received()
    update(listener.conn, result_id, **change)
    assert listener.received() == expected


def test_notify_direct_start_or_end_of_a_keyed_task_notifies_any(listener: Listener) -> None:
    """It was not under the key's lock, so a claim must look again."""
    result_id = add(listener.conn, lock_key="k")
    claim(listener.conn)
    listener.received()
    update(listener.conn, result_id, status="SUCCESSFUL")
    assert listener.received() == queued("")


def test_deleting_an_unfinished_keyed_task_notifies_any(listener: Listener) -> None:
    """Its key may be free now; a plain or finished task changes nothing."""
    keyed, plain, done = (
        add(listener.conn, lock_key="k"),
        add(listener.conn),
        add(listener.conn, lock_key="k", status="SUCCESSFUL"),
    )
    listener.received()
    listener.conn.execute("delete from task_runs where result_id = any(%s)", [[plain, done]])
    assert listener.received() == []
    listener.conn.execute("delete from task_runs where result_id = %s", [keyed])
    assert listener.received() == queued("")


def test_notify_cancel_tells_the_workers_once(listener: Listener) -> None:
    """{"op": "cancel", "id"} for a running task, by function or by Django's UPDATE; not again, not for others."""
    waiting = add(listener.conn, queue_name="later")
    add_many(listener.conn, 2)
    first, second = claim(listener.conn)
    listener.received()
    cancel(listener.conn, first.result_id)
    assert messages(listener.received()) == [control(op="cancel", id=first.result_id)]
    cancel(listener.conn, first.result_id)
    heartbeat(listener.conn, first, second)
    assert listener.received() == []
    update(listener.conn, second.result_id, cancel_requested=True)
    assert messages(listener.received()) == [control(op="cancel", id=second.result_id)]
    cancel(listener.conn, waiting)
    assert listener.received() == []


def test_notify_pause_switch_tells_the_workers(listener: Listener) -> None:
    """pause, resume (which also wakes the queue), by function, by Django's rows and by their deletion."""
    call(listener.conn, "reproq_pause", queue_name="q")
    assert messages(listener.received()) == [control(op="pause", queue="q")]
    call(listener.conn, "reproq_resume", queue_name="q")
    assert messages(listener.received()) == [control(op="resume", queue="q"), ("ready", "q")]
    call(listener.conn, "reproq_resume", queue_name="q")
    assert listener.received() == []
    listener.conn.execute("update reproq_queue_controls set paused = true")
    assert messages(listener.received()) == [control(op="pause", queue="q")]
    listener.conn.execute("delete from reproq_queue_controls")
    assert messages(listener.received()) == [control(op="resume", queue="q"), ("ready", "q")]


def test_notify_changed_limit_notifies_any(listener: Listener) -> None:
    """Tokens may be there earlier than a sleeper thinks."""
    limit_set(listener.conn, "queue:q", 1, 1)
    assert listener.received() == queued("")
    listener.conn.execute("select reproq_limit_rm('queue:q')")
    assert listener.received() == queued("")


def test_notifications_can_be_switched_off(listener: Listener) -> None:
    """reproq.notify = off for a session or transaction: no NOTIFY at all, on either channel; then always again."""
    listener.conn.execute("set local reproq.notify = off")
    add(listener.conn)
    call(listener.conn, "reproq_pause", queue_name="q")
    call(listener.conn, "reproq_resume", queue_name="q")
    limit_set(listener.conn, "queue:q", 1, 1)
    assert listener.received() == []
    listener.conn.execute("set local reproq.notify = always")
    add(listener.conn)
    assert listener.received() == queued("default")


def test_notify_without_a_waiting_worker_tells_only_what_an_operator_did(listener: Listener) -> None:
    """A task is found by the next claim. A pause, a cancel or a limit is sent in any case: it is rare."""
    listener.conn.execute("set local reproq.notify = auto")
    add(listener.conn, queue_name="q")
    call(listener.conn, "reproq_enqueue", task_path="a.b")
    call(listener.conn, "reproq_pause", queue_name="q")
    limit_set(listener.conn, "queue:q", 1, 1)
    received = messages(listener.received())
    assert received == [control(op="pause", queue="q"), ("ready", "")]


def test_notify_enqueue_that_finds_a_duplicate_notifies_no_worker(listener: Listener) -> None:
    """Nothing became claimable."""
    for more in ({"dedupe": True}, {"unique_key": "k"}):
        call(listener.conn, "reproq_enqueue", task_path="a.b", **more)
        assert listener.received() == queued("default")
        call(listener.conn, "reproq_enqueue", task_path="a.b", **more)
        assert listener.received() == []
        call(listener.conn, "reproq_enqueue_many", tasks=Jsonb([{"task_path": "a.b", **more}]))
        assert listener.received() == []
    call(listener.conn, "reproq_enqueue", task_path="a.b", unique_key="k", on_duplicate="replace")
    assert listener.received() == queued("default")
