"""reproq_explain: why a task is not running now, and what would change it; it agrees with the claim."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sql.calls import (
    Row,
    add,
    add_many,
    call,
    cancel,
    chain,
    chord,
    claim,
    claimed_ids,
    complete,
    fail_for_good,
    kind,
    limit_set,
    next_wake,
    statuses,
    task,
    update,
)
from tests.sql.exploring import effort
from tests.support.database import Clock

HOUR = timedelta(hours=1)


def explain(conn: psycopg.Connection, result_id: int) -> list[Row]:
    return call(conn, "reproq_explain", result_id=result_id)


def blocking(conn: psycopg.Connection, result_id: int) -> list[str]:
    return [row.reason for row in explain(conn, result_id) if row.blocks]


def why(conn: psycopg.Connection, result_id: int, reason: str) -> Row:
    (found,) = [row for row in explain(conn, result_id) if row.reason == reason]
    return found


def remedy(conn: psycopg.Connection, result_id: int, reason: str) -> None:
    """Do what the row says would change it."""
    conn.execute(why(conn, result_id, reason).remedy.encode())


def test_nothing_blocks_a_task_that_is_next(conn: psycopg.Connection, clock: Clock) -> None:
    """Only notes: its place, and that no worker is there for it."""
    first, second = add_many(conn, 2)
    assert blocking(conn, second) == []
    assert why(conn, second, "position").detail.startswith("1 due")
    assert why(conn, first, "position").detail.startswith("0 due")
    assert not why(conn, first, "no_worker").blocks


@pytest.mark.parametrize(
    ("queues", "modules", "silent", "is_there"),
    [
        (["default"], None, 0, True),
        (["default"], ["app"], 0, True),
        (["default"], ["app.tasks."], 4, True),
        (["default"], ["*"], 0, True),
        (["other"], None, 0, False),
        (["default"], ["application"], 0, False),
        (["default"], ["app.tas"], 0, False),
        (["default"], [], 0, False),
        (["default"], None, 6, False),
    ],
)
def test_explain_worker_for_it(
    conn: psycopg.Connection, clock: Clock, queues: list[str], modules: list[str] | None, silent: int, *, is_there: bool
) -> None:
    """One seen in the last five minutes, of its queue, whose allowed modules cover its path."""
    call(
        conn,
        "reproq_register_worker",
        worker_id="w",
        hostname="h",
        concurrency=1,
        queues=queues,
        allowed_modules=modules,
    )
    clock.advance(minutes=silent)
    notes = [row.reason for row in explain(conn, add(conn))]
    assert ("no_worker" in notes) != is_there


def test_due_later(conn: psycopg.Connection, clock: Clock) -> None:
    """Until when; the remedy makes it due."""
    result_id = add(conn, run_after=clock.now + HOUR)
    assert blocking(conn, result_id) == ["due_later"]
    assert why(conn, result_id, "due_later").until == clock.now + HOUR
    remedy(conn, result_id, "due_later")
    assert claimed_ids(conn) == [result_id]


def test_paused(conn: psycopg.Connection, clock: Clock) -> None:
    """Since when and why; the remedy resumes, whatever the queue is called."""
    queue = 'it\'s a "queue"'
    result_id = add(conn, queue_name=queue)
    call(conn, "reproq_pause", queue_name=queue, reason="deploy")
    assert blocking(conn, result_id) == ["paused"]
    assert "deploy" in why(conn, result_id, "paused").detail
    remedy(conn, result_id, "paused")
    assert claimed_ids(conn, queues=[queue]) == [result_id]


def test_lock_key(conn: psycopg.Connection, clock: Clock) -> None:
    """Who holds it, on which worker, until when; blocked or not."""
    holder, waiting = add_many(conn, 2, lock_key="key")
    claim(conn)
    assert blocking(conn, waiting) == ["lock_key"]
    found = why(conn, waiting, "lock_key")
    assert f"task {holder} on worker w1" in found.detail
    assert found.until == task(conn, holder).leased_until
    remedy(conn, waiting, "lock_key")
    assert task(conn, holder).cancel_requested


def test_concurrency_key(conn: psycopg.Connection) -> None:
    """How many run, of how many that may: the smallest limit of the key holds."""
    add_many(conn, 2, concurrency_key="key", concurrency_limit=2)
    free = add(conn, concurrency_key="key", concurrency_limit=0)
    late = add(conn, concurrency_key="key", concurrency_limit=9)
    claim(conn, 2)
    assert blocking(conn, late) == ["concurrency_key"]
    assert why(conn, late, "concurrency_key").detail.startswith("2 of 2 run")
    assert blocking(conn, free) == []


def test_concurrency_key_names_what_holds_the_limit_down(conn: psycopg.Connection) -> None:
    """The task with the smallest limit, or the operator's limit; the remedy raises it for the key."""
    low = add(conn, concurrency_key="it's", concurrency_limit=2)
    add(conn, concurrency_key="it's", concurrency_limit=9)
    late = add(conn, concurrency_key="it's", concurrency_limit=9)
    claim(conn, 2)
    assert why(conn, late, "concurrency_key").detail.endswith(f"; that limit is the one of task {low}")
    call(conn, "reproq_concurrency_set", key="it's", limit=1)
    assert why(conn, late, "concurrency_key").detail.endswith(
        "2 of 1 run under concurrency key 'it''s'; that limit is an operator's"
    )
    free = add(conn, concurrency_key="it's", concurrency_limit=0)
    assert blocking(conn, free) == ["concurrency_key"]
    remedy(conn, late, "concurrency_key")
    assert claimed_ids(conn) == [late]
    call(conn, "reproq_concurrency_set", key="it's", limit=None)
    own = add(conn, concurrency_key="it's", concurrency_limit=1)
    assert why(conn, own, "concurrency_key").detail.endswith("that limit is its own")


@pytest.mark.parametrize("key", ["task:app.tasks.run", "queue:default", "global"])
def test_rate_limit(conn: psycopg.Connection, clock: Clock, key: str) -> None:
    """Which bucket, and when it has a token again; the remedy removes it."""
    limit_set(conn, key, 0.1, 1)
    first, second = add_many(conn, 2)
    assert claimed_ids(conn) == [first]
    assert blocking(conn, second) == ["rate_limit"]
    until = why(conn, second, "rate_limit").until
    assert timedelta(0) <= until - clock.now - timedelta(seconds=10) < timedelta(milliseconds=1)
    clock.set(until)
    assert blocking(conn, second) == []
    clock.advance(seconds=-5)
    remedy(conn, second, "rate_limit")
    assert claimed_ids(conn) == [second]


def test_expired_or_cancelled(conn: psycopg.Connection, clock: Clock) -> None:
    """Expired, or its cancel requested: the next claim ends it."""
    late = add(conn, expires_at=clock.now)
    unwanted = add(conn, cancel_requested=True)
    assert blocking(conn, late) == ["expired"]
    assert blocking(conn, unwanted) == ["cancelled"]
    assert claimed_ids(conn) == []
    assert blocking(conn, late) == blocking(conn, unwanted) == ["ended"]


def test_waiting_for_a_step(conn: psycopg.Connection) -> None:
    """Which one, and where to look next."""
    first, second, _ = chain(conn, 3)
    found = why(conn, second, "waiting_for_step")
    assert (found.blocks, found.detail) == (True, f"waits for task {first}, which is READY")
    assert str(first) in found.remedy


def test_waiting_for_members(conn: psycopg.Connection) -> None:
    """How many have succeeded, and one that has not."""
    _, members, callback = chord(conn, 3)
    complete(conn, *claim(conn, 2))
    found = why(conn, callback, "waiting_for_members")
    assert found.detail.startswith("2 of 3")
    assert str(members[2]) in found.remedy
    conn.execute("delete from task_runs where result_id = %s", [members[2]])
    assert "no other is left" in why(conn, callback, "waiting_for_members").detail
    remedy(conn, callback, "waiting_for_members")
    assert task(conn, callback).status == "FAILED"


def test_explain_orphan(conn: psycopg.Connection) -> None:
    """What it waited for is gone; the remedy ends it."""
    result_id = add(conn, status="WAITING", wait_count=1)
    assert blocking(conn, result_id) == ["orphaned"]
    remedy(conn, result_id, "orphaned")
    assert task(conn, result_id).status == "FAILED"


def test_running_and_ended(conn: psycopg.Connection) -> None:
    """By whom and until when; how it ended, and what runs it again."""
    result_id = add(conn)
    (got,) = claim(conn)
    assert why(conn, result_id, "running").until == task(conn, result_id).leased_until
    cancel(conn, result_id)
    assert "cancel is requested" in why(conn, result_id, "running").detail
    fail_for_good(conn, got)
    assert "app_error: boom" in why(conn, result_id, "ended").detail
    remedy(conn, result_id, "ended")
    complete(conn, *claim(conn))
    remedy(conn, result_id, "ended")
    assert len(claim(conn)) == 1


def test_explain_step_that_failed_with_an_earlier_one(conn: psycopg.Connection) -> None:
    """The remedy retries the step that failed of itself; the ones behind it wait again."""
    first, second, third = chain(conn, 3)
    fail_for_good(conn, *claim(conn))
    found = why(conn, third, "ended")
    assert found.detail.startswith("FAILED: parent_failed: ")
    assert found.detail.endswith(f"; waits for task {first}, which is FAILED: app_error: boom")
    remedy(conn, third, "ended")
    assert statuses(conn, [first, second, third]) == ["READY", "WAITING", "WAITING"]


def test_explain_callback_that_failed_with_its_members(conn: psycopg.Connection) -> None:
    """The remedy retries a member that failed, or the step that it failed with; then the callback waits."""
    _, members, callback = chord(conn, 3)
    step = add(conn, priority=9)
    update(conn, members[0], status="WAITING", parent_id=step)
    fail_for_good(conn, *claim(conn, 2))
    assert [kind(conn, t) for t in (members[0], members[1], callback)] == [
        "parent_failed",
        "app_error",
        "workflow_failed",
    ]
    assert f"task {step}, which is FAILED" in why(conn, callback, "ended").detail
    remedy(conn, callback, "ended")
    assert statuses(conn, [step, members[0], callback]) == ["READY", "WAITING", "FAILED"]
    remedy(conn, callback, "ended")
    assert statuses(conn, [members[1], callback]) == ["READY", "WAITING"]


def test_explain_step_cancelled_while_it_waited(conn: psycopg.Connection) -> None:
    """Its own retry remedies it once the step before it has succeeded; until then one looks at that one."""
    first, second = chain(conn, 2)
    cancel(conn, second)
    found = why(conn, second, "ended")
    assert (found.detail, found.remedy) == (
        f"FAILED: cancelled: cancelled before it started; waits for task {first}, which is READY",
        f"select * from reproq_explain({first})",
    )
    fail_for_good(conn, *claim(conn))
    remedy(conn, second, "ended")
    assert statuses(conn, [first, second]) == ["READY", "FAILED"]
    complete(conn, *claim(conn))
    remedy(conn, second, "ended")
    assert statuses(conn, [second]) == ["READY"]


def test_explain_step_whose_predecessor_was_deleted(conn: psycopg.Connection) -> None:
    """No remedy, and it says so; for the steps behind it as well."""
    first, second, third = chain(conn, 3)
    fail_for_good(conn, *claim(conn))
    conn.execute("delete from task_runs where result_id = %s", [first])
    for step in (second, third):
        found = why(conn, step, "ended")
        assert "was deleted, so nothing can retry it" in found.detail
        assert found.remedy is None


def test_steps_in_a_circle(conn: psycopg.Connection) -> None:
    """Rows that wait for each other are told like any other; the look ends."""
    first, second = add_many(conn, 2, status="FAILED")
    update(conn, first, parent_id=second)
    update(conn, second, parent_id=first)
    assert blocking(conn, first) == ["ended"]


@pytest.mark.parametrize("result_id", [0, -1, 2**63 - 1, None])
def test_explain_no_such_task(conn: psycopg.Connection, result_id: int) -> None:
    """missing."""
    assert [row.reason for row in explain(conn, result_id)] == ["missing"]


@dataclass(frozen=True)
class Task:
    """What a task may be held up by."""

    queue: str
    path: str
    lock_key: str | None
    concurrency_key: str | None
    limit: int
    due: float
    expired_or_cancelled: str | None
    running: bool

    def columns(self, clock: Clock) -> dict[str, Any]:
        keyed = self.expired_or_cancelled is None  # a expired_or_cancelled task's limit counts until a claim ends it
        return {
            "queue_name": self.queue,
            "task_path": self.path,
            "lock_key": self.lock_key if keyed else None,
            "concurrency_key": self.concurrency_key if keyed else None,
            "concurrency_limit": self.limit if keyed and self.concurrency_key else 0,
            "run_after": clock.now + timedelta(seconds=self.due) if self.due else None,
            "expires_at": clock.now if self.expired_or_cancelled == "expired" else clock.now + HOUR,
            "cancel_requested": self.expired_or_cancelled == "cancelled",
        }


PATHS = ("app.tasks.run", "app.tasks.slow")
QUEUES = ("a", "b")
tasks = st.lists(
    st.builds(
        Task,
        queue=st.sampled_from(QUEUES),
        path=st.sampled_from(PATHS),
        lock_key=st.sampled_from([None, None, "k", "l", ""]),
        concurrency_key=st.sampled_from([None, None, "c", "d"]),
        limit=st.sampled_from([0, 1, 2, 5]),
        due=st.sampled_from([0.0, 0.0, 0.0, -60.0, -1.0, 1.0, 60.0]),
        expired_or_cancelled=st.sampled_from([None] * 8 + ["expired", "cancelled"]),
        running=st.booleans(),
    ),
    max_size=20,
)
limits = st.dictionaries(
    st.sampled_from(["global", *(f"queue:{q}" for q in QUEUES), *(f"task:{p}" for p in PATHS)]),
    st.tuples(st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([1, 2, 3])),
    max_size=3,
)


def claim_all(conn: psycopg.Connection) -> list[Row]:
    """Claim as long as reproq_next_wake says that it is worth while."""
    got = claim(conn, 1000, queues=QUEUES)
    for _ in range(30):
        if next_wake(conn, *QUEUES) != timedelta(0):
            return got
        got += claim(conn, 1000, queues=QUEUES)
    raise AssertionError("next_wake never stops saying that a claim finds something")


def rivals(conn: psycopg.Connection, got: list[Row], waiting: Row) -> bool:
    """Whether a task of a claim took what another one needed: its key, or a token of its bucket."""
    for each in (task(conn, t.result_id) for t in got):
        same_lock = bool(each.lock_key) and each.lock_key == waiting.lock_key
        same_key = bool(each.concurrency_key) and each.concurrency_key == waiting.concurrency_key
        buckets = [
            call(conn, "_reproq_bucket", queue_name=t.queue_name, limit_key=f"task:{t.task_path}", now=t.enqueued_at)
            for t in (each, waiting)
        ]
        same_bucket = bool(buckets[0]) and [b.key for b in buckets[0]] == [b.key for b in buckets[1]]
        if same_lock or same_key or same_bucket:
            return True
    return False


@effort(60)
@given(tasks=tasks, limits=limits, paused=st.sampled_from([None, None, "a", "b"]))
def test_explain_it_agrees_with_the_claim(
    conn: psycopg.Connection, clock: Clock, tasks: list[Task], limits: dict[str, tuple[float, int]], paused: str | None
) -> None:
    """What it calls blocked is not claimed; what it does not is claimed, unless one ahead took its key or token."""
    with conn.transaction(force_rollback=True):
        for key, (rate, burst) in limits.items():
            limit_set(conn, key, rate, burst)
        ids = []
        for each in tasks:
            ids.append(add(conn, **each.columns(clock)))
            if each.running:
                claim(conn, 1, queues=[each.queue])
        if paused:
            call(conn, "reproq_pause", queue_name=paused)
        ready = [row for row in (task(conn, result_id) for result_id in ids) if row.status == "READY"]
        blocked = {row.result_id: blocking(conn, row.result_id) for row in ready}
        got = claim_all(conn)
        taken = {t.result_id for t in got}
        assert taken.isdisjoint(result_id for result_id, reasons in blocked.items() if reasons)
        for row in ready:
            assert blocked[row.result_id] or row.result_id in taken or rivals(conn, got, row), row


def test_blocked_behind_a_key_that_is_free(conn: psycopg.Connection) -> None:
    """Blocked by name only: nothing blocks it, and a claim finds it."""
    result_id = add(conn, lock_key="key")
    update(conn, result_id, blocked_on="l:key")
    assert task(conn, result_id).blocked_on == "l:key"
    assert blocking(conn, result_id) == []
    assert claimed_ids(conn) == [result_id]
