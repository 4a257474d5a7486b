"""Unique keys and duplicates by spec: what reproq_enqueue finds, what it makes, and what becomes of the keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    PATH,
    call,
    cancel,
    claim,
    claimed_ids,
    complete,
    fail,
    fail_for_good,
    refused,
    retry,
    rows,
    task,
    update,
    value,
)
from tests.support.database import Clock

HOUR = timedelta(hours=1)


def enqueue(conn: psycopg.Connection, key: str | None = "k", **arguments: Any) -> int:
    """Enqueue a task with this unique key: its id, or that of the one it found."""
    ((result_id,),) = call(conn, "reproq_enqueue", **{"task_path": PATH, "unique_key": key, **arguments})
    return int(result_id)


def keys(conn: psycopg.Connection) -> list[tuple[str, int, list[int]]]:
    """The keys that the table knows."""
    found = rows(conn, "select unique_key, result_id, earlier_ids from reproq_unique_keys order by result_id")
    return [tuple(row) for row in found]


def test_enqueue_unique_queued_task_is_kept(conn: psycopg.Connection) -> None:
    """While one is READY, the same key finds it, whatever else differs; a second key makes a second one."""
    first = enqueue(conn, args=Jsonb([1]))
    assert enqueue(conn, args=Jsonb([2]), priority=9, queue_name="q", lock_key="l") == first
    assert task(conn, first).spec_json["args"] == [1]
    assert enqueue(conn, "other") != first
    assert enqueue(conn, None) != first
    assert keys(conn)[0] == ("k", first, [])


def test_enqueue_unique_key_belongs_to_a_path(conn: psycopg.Connection) -> None:
    """Two functions may use one key: neither swallows the other's tasks."""
    assert enqueue(conn) != enqueue(conn, task_path="app.tasks.other")
    assert enqueue(conn, "b.c", task_path="a.a") != enqueue(conn, "c", task_path="a.a.b")


@pytest.mark.parametrize("status", ["RUNNING", "SUCCESSFUL", "FAILED"])
@pytest.mark.parametrize("scope", ["queued", "active"])
def test_enqueue_unique_task_that_has_started(conn: psycopg.Connection, status: str, scope: str) -> None:
    """`queued` ends with the start, `active` with the end of the task."""
    first = enqueue(conn, unique_while=scope)
    (got,) = claim(conn)
    if status == "SUCCESSFUL":
        complete(conn, got)
    elif status == "FAILED":
        fail_for_good(conn, got)
    found = enqueue(conn, unique_while=scope)
    assert (found == first) == (status == "RUNNING" and scope == "active")


def test_enqueue_unique_waiting_task_is_queued(conn: psycopg.Connection) -> None:
    """WAITING counts as READY does."""
    first = enqueue(conn)
    update(conn, first, status="WAITING")
    assert enqueue(conn) == first


def test_enqueue_unique_task_is_unique_for_a_while(conn: psycopg.Connection, clock: Clock) -> None:
    """Within p_unique_for since it was enqueued, whatever became of it: the safe repeat of an enqueue."""
    first = enqueue(conn, unique_for=HOUR)
    assert enqueue(conn, unique_for=HOUR) == first
    (got,) = claim(conn)
    assert enqueue(conn, unique_for=HOUR) == first
    complete(conn, got)
    clock.advance(minutes=59)
    assert enqueue(conn, unique_for=HOUR) == first
    assert enqueue(conn, unique_for=timedelta(minutes=58)) != first


def test_enqueue_unique_failed_task_is_unique_for_a_while(conn: psycopg.Connection, clock: Clock) -> None:
    """A failure of its own is an outcome like another; after the interval the key is free."""
    first = enqueue(conn, unique_for=HOUR)
    fail_for_good(conn, *claim(conn))
    assert enqueue(conn, unique_for=HOUR) == first
    clock.advance(minutes=61)
    assert enqueue(conn, unique_for=HOUR) != first


@pytest.mark.parametrize("by", ["dedupe", "unique_key"])
@pytest.mark.parametrize("end", ["expired", "cancelled", "requested", "django", "ended as expired"])
def test_enqueue_unique_ending_task_is_no_duplicate(conn: psycopg.Connection, clock: Clock, by: str, end: str) -> None:
    """Expired (ended or not yet), cancelled, cancel requested: it would swallow the new one."""
    more: dict[str, Any] = {"dedupe": True, "key": None} if by == "dedupe" else {"unique_for": HOUR}
    first = enqueue(conn, expires_at=clock.now + timedelta(minutes=1) if "expired" in end else None, **more)
    if end == "cancelled":
        assert cancel(conn, first) == "cancelled"
    elif end == "requested":
        claim(conn)
        assert cancel(conn, first) == "requested"
        more |= {"unique_while": "active"} if by == "unique_key" else {}
    elif end == "django":
        update(conn, first, status="CANCELLED")
    else:
        clock.advance(minutes=2)
    if end == "ended as expired":
        assert claim(conn) == []
        assert task(conn, first).status == "FAILED"
    second = enqueue(conn, **more)
    assert second != first
    assert enqueue(conn, **more) == second
    assert claimed_ids(conn) == [second]


def test_enqueue_unique_cancel_that_django_requests(conn: psycopg.Connection) -> None:
    """A READY row with cancel_requested ends soon: not a duplicate by spec or by key."""
    by_spec, by_key = enqueue(conn, None, dedupe=True), enqueue(conn)
    for result_id in (by_spec, by_key):
        update(conn, result_id, cancel_requested=True)
    assert {enqueue(conn, None, dedupe=True), enqueue(conn)}.isdisjoint({by_spec, by_key})


@pytest.mark.parametrize("by", ["dedupe", "unique_key"])
def test_enqueue_unique_longer_expiry_wins(conn: psycopg.Connection, clock: Clock, by: str) -> None:
    """A duplicate that would expire earlier expires as late as the new one; never is latest."""
    more: dict[str, Any] = {"dedupe": True, "key": None} if by == "dedupe" else {}
    first = enqueue(conn, expires_at=clock.now + HOUR, **more)
    expiries = []
    for expires_at in (clock.now + HOUR / 2, clock.now + 2 * HOUR, clock.now + HOUR, None, clock.now + HOUR):
        assert enqueue(conn, expires_at=expires_at, **more) == first
        expiries.append(task(conn, first).expires_at)
    assert expiries == [clock.now + HOUR, clock.now + 2 * HOUR, clock.now + 2 * HOUR, None, None]


def test_replace_overwrites_a_queued_task(conn: psycopg.Connection, clock: Clock) -> None:
    """Arguments, priority and time (debounce); what else it was stays. Column and spec agree."""
    first = enqueue(conn, args=Jsonb([1]), kwargs=Jsonb({"a": 1}), queue_name="q", max_attempts=7, delay="1 min")
    clock.advance(seconds=50)
    again = enqueue(conn, args=Jsonb([2]), priority=5, delay="1 min", on_duplicate="replace", max_attempts=2)
    row = task(conn, first)
    assert again == first
    assert (row.spec_json["args"], row.spec_json["kwargs"], row.spec_json["priority"]) == ([2], {}, 5)
    assert (row.priority, row.run_after, row.queue_name, row.max_attempts) == (
        5,
        clock.now + timedelta(minutes=1),
        "q",
        7,
    )
    assert row.spec_json["run_after"] == (clock.now + timedelta(minutes=1)).isoformat()
    clock.advance(seconds=30)
    assert claim(conn, queues=["q"]) == []
    clock.advance(seconds=30)
    (got,) = claim(conn, queues=["q"])
    assert got.spec_json["args"] == [2]


def test_replace_does_not_touch_what_has_started(conn: psycopg.Connection) -> None:
    """A running task that is found keeps its arguments."""
    first = enqueue(conn, args=Jsonb([1]))
    claim(conn)
    assert enqueue(conn, args=Jsonb([2]), on_duplicate="replace", unique_while="active") == first
    assert task(conn, first).spec_json["args"] == [1]


def test_replace_unblocks(conn: psycopg.Connection) -> None:
    """A task that moves to another stream is not left blocked behind its old one."""
    for _ in range(9):
        last = enqueue(conn, f"k{_}", lock_key="l")
    assert task(conn, last).blocked_on == "l:l"
    enqueue(conn, "k8", lock_key="l", priority=9, on_duplicate="replace")
    assert claimed_ids(conn, 1) == [last]


def test_enqueue_unique_retry_of_an_earlier_task_is_found(conn: psycopg.Connection) -> None:
    """The key names all its tasks that may be queued again: by a retry of the worker, or of an operator."""
    first = enqueue(conn)
    (got,) = claim(conn)
    second = enqueue(conn)
    assert keys(conn) == [("k", second, [first])]
    complete(conn, *claim(conn))
    fail(conn, got, retryable=True)
    assert enqueue(conn) == first
    update(conn, first, run_after=None)
    fail_for_good(conn, *claim(conn))
    third = enqueue(conn)
    assert third not in (first, second)
    complete(conn, *claim(conn))
    assert retry(conn, first) == "retried"
    assert enqueue(conn) == first


def test_earlier_tasks_are_forgotten_when_they_cannot_come_back(conn: psycopg.Connection) -> None:
    """One row a key, however often it is used: succeeded tasks leave it, and of failed ones fifty stay."""
    for _ in range(3):
        enqueue(conn)
        complete(conn, *claim(conn))
    (row,) = keys(conn)
    assert row[2] == []
    for _ in range(60):
        last = enqueue(conn)
        fail_for_good(conn, *claim(conn))
    (row,) = keys(conn)
    assert (row[1], len(row[2])) == (last, 50)


@pytest.mark.parametrize("how", ["delete", "truncate", "reproq_prune_finished"])
def test_keys_go_with_their_tasks(conn: psycopg.Connection, how: str) -> None:
    """Pruned, deleted or truncated: no key is left, and ids that begin at 1 again find nothing."""
    enqueue(conn)
    enqueue(conn, "other")
    complete(conn, *claim(conn))
    if how == "delete":
        conn.execute("delete from task_runs")
    elif how == "truncate":
        conn.execute("truncate task_runs, workflow_runs")
    else:
        assert value(conn, "select reproq_prune_finished('0')") == 2
    assert keys(conn) == []


def test_enqueue_unique_pruned_task_leaves_other_keys(conn: psycopg.Connection) -> None:
    """Only the keys of deleted tasks go."""
    first = enqueue(conn)
    complete(conn, *claim(conn))
    other = enqueue(conn, "other")
    assert value(conn, "select reproq_prune_finished('0')") == 1
    assert keys(conn) == [("other", other, [])]
    assert enqueue(conn) != first


def test_enqueue_unique_many_with_keys(conn: psycopg.Connection) -> None:
    """In bulk, with all parameters; the first of a key in a call makes the task, whatever the order of the keys."""
    old = enqueue(conn, "old", args=Jsonb([0]))
    tasks = [
        {"task_path": PATH, "args": [1], "unique_key": "z"},
        {"task_path": PATH, "args": [2], "unique_key": "a"},
        {"task_path": PATH, "args": [3], "unique_key": "z", "on_duplicate": "replace"},
        {"task_path": PATH, "args": [4], "unique_key": "old", "unique_while": "active", "unique_for": 60},
        {"task_path": PATH, "args": [5]},
    ]
    answers = call(conn, "reproq_enqueue_many", tasks=Jsonb(tasks))
    ids = [row.result_id for row in answers]
    assert [row.created for row in answers] == [True, True, False, False, True]
    assert ids == [ids[0], ids[1], ids[0], old, ids[4]]
    assert [row.spec_json["args"] for row in claim(conn)] == [[0], [3], [2], [5]]


@pytest.mark.parametrize("function", ["reproq_chain", "reproq_group"])
@pytest.mark.parametrize("more", [{"dedupe": True}, {"unique_key": "k"}])
def test_steps_of_workflows_are_never_duplicates(conn: psycopg.Connection, function: Any, more: dict[str, Any]) -> None:
    """RQ002 that says so, with the place; dedupe false is fine."""
    error = refused(conn, function, tasks=Jsonb([{"task_path": PATH, "dedupe": False}, {"task_path": PATH, **more}]))
    assert error.sqlstate == "RQ002"
    assert "workflow" in str(error)
    assert error.diag.message_detail == "task 2 of the call"
    error = refused(conn, "reproq_chord", tasks=Jsonb([]), callback=Jsonb({"task_path": PATH, **more}))
    assert error.sqlstate == "RQ002"


def test_enqueue_unique_long_key(conn: psycopg.Connection) -> None:
    """Any text of 8192 bytes."""
    key = "".join(chr(33 + n * 7919 % 90) for n in range(8192))
    assert enqueue(conn, key) == enqueue(conn, key)
    assert enqueue(conn, key[:-1]) != enqueue(conn, key)


def test_claims_and_ends_do_not_touch_keys(conn: psycopg.Connection) -> None:
    """They pay nothing: the table of keys is only written by enqueue."""
    enqueue(conn)
    enqueue(conn, "other")
    conn.execute("revoke all on reproq_unique_keys from current_user")
    conn.execute("alter table reproq_unique_keys rename to gone_for_now")
    complete(conn, *claim(conn, 1))
    fail(conn, *claim(conn, 1))
    conn.execute("alter table gone_for_now rename to reproq_unique_keys")
