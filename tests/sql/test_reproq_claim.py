"""reproq_claim: what is taken, in which order, what is written, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    MINUTE,
    add,
    add_many,
    claim,
    claimed,
    claimed_ids,
    fail,
    kind,
    limit_set,
    next_wake,
    refused,
    release,
    retry,
    rows,
    statuses,
    task,
    value,
)
from tests.support.database import Clock


def test_claim_writes_the_attempt_and_returns_what_an_executor_needs(conn: psycopg.Connection, clock: Clock) -> None:
    """RUNNING, leased from now by the database's clock, charged, with a random token; all of it in the answer."""
    spec = {"v": 1, "task_path": "app.tasks.send", "args": [1], "kwargs": {"to": "ä"}}
    result_id = add(conn, spec_json=spec, priority=3, max_attempts=7, timeout_seconds=11)
    clock.advance(seconds=5)
    incarnation = uuid.uuid4()

    (got,) = claim(conn, 1, worker="w9", lease=timedelta(seconds=90), incarnation=incarnation)

    row = task(conn, result_id)
    assert (row.status, row.attempts, row.leased_by, row.leased_incarnation) == ("RUNNING", 1, "w9", incarnation)
    assert row.leased_until == clock.now + timedelta(seconds=90)
    assert row.started_at == row.last_attempted_at == row.updated_at == clock.now
    assert row.worker_ids == ["w9"]
    assert (got.result_id, got.lease_token, got.spec_json) == (result_id, row.lease_token, spec)
    assert (got.queue_name, got.priority, got.task_path, got.limit_key) == ("default", 3, "app.tasks.send", "")
    assert (got.attempts, got.max_attempts, got.timeout_seconds, got.lost_count) == (1, 7, 11, 0)
    assert (got.enqueued_at, got.ready_since, got.waited) == (row.enqueued_at, row.enqueued_at, timedelta(seconds=5))


def test_claim_each_claim_issues_a_new_token(conn: psycopg.Connection) -> None:
    """Neither worker id nor attempt number repeat into the same fence."""
    first = claimed(conn)
    release(conn, first)
    (second,) = claim(conn, 1, queues=[first.queue_name])
    assert (second.result_id, second.attempts) == (first.result_id, first.attempts)
    assert second.lease_token != first.lease_token


def test_first_in_first_out_counts_from_ready_since(conn: psycopg.Connection, clock: Clock) -> None:
    """Within a priority: ready since, then id; a task scheduled long ahead is as young as its run_after."""
    hour = timedelta(hours=1)
    scheduled = add(conn, enqueued_at=clock.now - 900 * hour, run_after=clock.now - hour)
    old = add(conn, enqueued_at=clock.now - 2 * hour)
    duplicate_a, duplicate_b = add_many(conn, 2, enqueued_at=clock.now - 3 * hour)
    assert claimed_ids(conn, aging_factor=0) == [duplicate_a, duplicate_b, old, scheduled]


@pytest.mark.parametrize(
    ("waited", "factor", "first"),
    [
        (599, 60.0, "urgent"),  # 9.98 for waiting: less than 10
        (601, 60.0, "patient"),
        (601, 0.0, "urgent"),  # no aging: priority alone
        (10**6, 0.0, "urgent"),
        (11, 1.0, "patient"),
    ],
)
def test_waiting_grows_into_priority(
    conn: psycopg.Connection, clock: Clock, waited: int, factor: float, first: str
) -> None:
    """One priority for each aging factor of seconds waited since ready; factor 0 switches aging off."""
    patient = add(conn, priority=0, enqueued_at=clock.now - timedelta(seconds=waited))
    urgent = add(conn, priority=10, enqueued_at=clock.now)
    expected = {"patient": patient, "urgent": urgent}[first]
    assert claimed_ids(conn, 1, aging_factor=factor) == [expected]


def test_claim_task_scheduled_long_ahead_does_not_age_before_it_is_due(conn: psycopg.Connection, clock: Clock) -> None:
    """Age counts from max(enqueued_at, run_after), so it cannot overtake priority 100."""
    add(conn, priority=0, enqueued_at=clock.now - timedelta(days=90), run_after=clock.now - timedelta(seconds=1))
    important = add(conn, priority=100, enqueued_at=clock.now)
    assert claimed_ids(conn, 1) == [important]


def test_queues_take_turns_in_the_order_given(conn: psycopg.Connection) -> None:
    """First of each queue, then second of each; a high priority in one queue does not starve another."""
    a = add_many(conn, 3, queue_name="a", priority=100)
    b = add_many(conn, 2, queue_name="b")
    c = add_many(conn, 1, queue_name="c")
    assert claimed_ids(conn, 5, queues=["b", "a", "c", "b"]) == [b[0], a[0], c[0], b[1], a[1]]
    assert claimed_ids(conn, 5, queues=["c", "a"]) == [a[2]]


def test_claim_only_due_tasks_of_the_named_queues_are_taken(conn: psycopg.Connection, clock: Clock) -> None:
    """The future, other queues and other statuses stay; run_after = now is due."""
    now = clock.now
    due = add(conn, run_after=now)
    later = add(conn, run_after=now + timedelta(microseconds=1))
    others = [
        add(conn, queue_name="other"),
        add(conn, status="WAITING"),
        add(conn, status="SUCCESSFUL"),
        add(conn, status="FAILED"),
        add(conn, status="CANCELLED"),
        add(conn, status="RUNNING"),
    ]
    assert claimed_ids(conn) == [due]
    clock.advance(seconds=0.000001)
    assert claimed_ids(conn) == [later]
    assert statuses(conn, others) == ["READY", "WAITING", "SUCCESSFUL", "FAILED", "CANCELLED", "RUNNING"]


def test_claim_paused_queue_gives_nothing(conn: psycopg.Connection) -> None:
    """Pause holds for plain claims and for claims with a hint; the other queues go on."""
    stopped, going = add(conn, queue_name="stopped"), add(conn, queue_name="going")
    conn.execute("select reproq_pause('stopped')")
    hint = Jsonb([{"queue_name": "stopped", "limit_key": "", "priority": 0, "since": None}])
    assert claimed_ids(conn, queues=["stopped"], hint=hint) == []
    assert claimed_ids(conn, queues=["stopped", "going"]) == [going]
    conn.execute("select reproq_resume('stopped')")
    assert claimed_ids(conn, queues=["stopped", "going"]) == [stopped]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [({"cancel_requested": True}, "cancelled"), ({"expires_at": timedelta(0)}, "expired")],
)
def test_claim_task_that_must_not_start_ends_at_the_claim(
    conn: psycopg.Connection, clock: Clock, columns: dict[str, Any], expected: str
) -> None:
    """Cancelled or past expires_at (now included): FAILED of that kind, uncharged; the next one is taken."""
    if "expires_at" in columns:
        columns = {"expires_at": clock.now}
    expired_or_cancelled = add(conn, priority=9, **columns)
    step = add(conn, status="WAITING", parent_id=expired_or_cancelled)
    alive = add(conn, expires_at=clock.now + timedelta(microseconds=1))
    assert claimed_ids(conn, 1) == [alive]
    assert (kind(conn, expired_or_cancelled), task(conn, expired_or_cancelled).attempts, kind(conn, step)) == (
        expected,
        0,
        "parent_failed",
    )


def test_expired_or_cancelled_tasks_do_not_use_up_the_claim(conn: psycopg.Connection, clock: Clock) -> None:
    """A claim steps over a hundred expired tasks to the first live one."""
    add_many(conn, 100, expires_at=clock.now, priority=1)
    alive = add(conn)
    assert claimed_ids(conn, 1) == [alive]


def test_claim_limit_is_the_limit(conn: psycopg.Connection) -> None:
    """Never more than asked for (the re-scanned LIMIT claimed 50 for 2); the rest stays in order."""
    ids = add_many(conn, 50)
    assert claimed_ids(conn, 2) == ids[:2]
    assert claimed_ids(conn, 10000) == ids[2:]


def test_claim_empty_claim_answers_nothing(conn: psycopg.Connection) -> None:
    """No rows, no error, for queues that never were."""
    assert claim(conn, queues=["unknown", "", "x" * 70000, "\U0001f600'\"\n"]) == []


def test_claim_thousand_queues(conn: psycopg.Connection) -> None:
    """Many queues, most of them empty, are one claim."""
    ids = [add(conn, queue_name=f"q{number}") for number in (1, 500, 999)]
    assert claimed_ids(conn, queues=[f"q{number}" for number in range(1000)]) == ids


def test_claim_empty_poll_writes_nothing(connect: Callable[[], psycopg.Connection]) -> None:
    """No row, no WAL, no transaction id while all is throttled, blocked, paused, in the future or leased."""
    session = connect()
    limit_set(session, "task:app.tasks.slow", 0.0001, 1)
    add_many(session, 5, task_path="app.tasks.slow")
    add_many(session, 12, lock_key="k")
    add_many(session, 3, concurrency_key="c", concurrency_limit=1)
    add(session, run_after="9999-01-01")
    add(session, queue_name="paused")
    session.execute("select reproq_pause('paused')")
    for _ in range(5):
        claim(session, 50, queues=["default", "paused"])
    session.commit()

    for aging_factor in (60, 0):
        assert claim(session, 50, queues=["default", "paused"], aging_factor=aging_factor) == []
        next_wake(session, "default", "paused")
    assert value(session, "select pg_current_xact_id_if_assigned()") is None


def test_claim_hint_reads_its_streams_from_its_place_on(conn: psycopg.Connection, clock: Clock) -> None:
    """p_hint restricts the look to streams and start times; null since = all; other queues are left out."""
    start = clock.now
    old = add(conn, enqueued_at=start - timedelta(hours=2))
    middle = add(conn, enqueued_at=start - timedelta(hours=1))
    other_priority = add(conn, priority=5)
    since = (start - timedelta(hours=1)).isoformat()

    def look(*streams: dict[str, Any]) -> list[int]:
        with conn.transaction(force_rollback=True):
            return claimed_ids(conn, hint=Jsonb(list(streams)))

    stream = {"queue_name": "default", "limit_key": "", "priority": 0}
    assert look({**stream, "since": since}) == [middle]
    assert look({**stream, "since": None}) == [old, middle]
    assert look(stream) == [old, middle]
    assert look({**stream, "priority": 5}) == look({**stream, "priority": 5.0}) == [other_priority]
    assert look({**stream, "queue_name": "elsewhere"}) == []
    assert look() == []
    assert look({**stream, "since": since}, {**stream, "since": None}) == [old, middle]  # named twice, taken once


@pytest.mark.parametrize(
    "hint",
    [
        *('"x"', "{}", "5", "null", "true"),
        *("[1]", "[null]", "[[]]", '["x"]'),
        *('[{"priority": "x"}]', '[{"priority": 0.5}]', '[{"priority": 1e20}]'),
        *('[{"since": "junk"}]', '[{"since": 5}]'),
    ],
)
def test_claim_hint_that_is_no_array_of_streams_is_refused(conn: psycopg.Connection, hint: str) -> None:
    """RQ001; JSON null is no hint at all in SQL terms, so it is refused too."""
    error = refused(
        conn,
        "reproq_claim",
        worker_id="w",
        queues=["q"],
        limit=1,
        lease=MINUTE,
        hint=hint,
    )
    assert error.sqlstate == "RQ001"


@pytest.mark.parametrize(
    ("argument", "bad", "named"),
    [
        ("worker_id", None, "p_worker_id"),
        ("worker_id", "", "p_worker_id"),
        ("queues", None, "p_queues"),
        ("queues", [], "p_queues"),
        ("queues", ["a", None], "p_queues"),
        ("limit", None, "p_limit"),
        ("limit", 0, "p_limit"),
        ("limit", -1, "p_limit"),
        ("limit", 10001, "p_limit"),
        ("limit", 2**31 - 1, "p_limit"),
        ("lease", None, "p_lease"),
        ("lease", "0", "p_lease"),
        ("lease", "-1 s", "p_lease"),
        ("lease", "infinity", "p_lease"),
        ("lease", "-infinity", "p_lease"),
        ("lease", "31 days", "p_lease"),
        ("lease", "100000 years", "p_lease"),
        ("aging_factor", None, "p_aging_factor"),
        ("aging_factor", -1.0, "p_aging_factor"),
        ("aging_factor", float("nan"), "p_aging_factor"),
        ("aging_factor", 5e-324, "p_aging_factor"),
    ],
)
def test_bad_arguments_are_refused_by_name(conn: psycopg.Connection, argument: str, bad: Any, named: str) -> None:
    """RQ001; the message names the argument, the hint the remedy; nothing is claimed."""
    add(conn)
    arguments = {"worker_id": "w", "queues": ["default"], "limit": 1, "lease": MINUTE, argument: bad}
    error = refused(conn, "reproq_claim", **arguments)
    assert error.sqlstate == "RQ001"
    assert named in str(error)
    assert error.diag.message_hint


@pytest.mark.parametrize("aging_factor", [float("inf"), 1e300, 0.001])
def test_extreme_aging_factors_work(conn: psycopg.Connection, clock: Clock, aging_factor: float) -> None:
    """Order is defined for every factor that is accepted, also for ancient tasks."""
    old = add(conn, enqueued_at=clock.now - timedelta(days=700000))
    new = add(conn)
    assert claimed_ids(conn, aging_factor=aging_factor) == [old, new]


def test_priorities_at_the_ends_of_the_type(conn: psycopg.Connection, clock: Clock) -> None:
    """-2^31 and 2^31-1 are priorities; aging does not overflow."""
    low = add(conn, priority=-(2**31), enqueued_at=clock.now - timedelta(days=700000))
    high = add(conn, priority=2**31 - 1)
    assert claimed_ids(conn) == [high, low]


def test_leases_at_the_ends_of_the_range(conn: psycopg.Connection, clock: Clock) -> None:
    """A millisecond and thirty days are leases."""
    for lease in (timedelta(milliseconds=1), timedelta(days=30)):
        result_id = add(conn)
        claim(conn, lease=lease)
        assert task(conn, result_id).leased_until == clock.now + lease


def test_worker_history_is_bounded(conn: psycopg.Connection) -> None:
    """worker_ids keeps the last ten."""
    result_id = add(conn)
    for number in range(12):
        (got,) = claim(conn, worker=f"w{number}")
        release(conn, got)
    assert task(conn, result_id).worker_ids == [f"w{number}" for number in range(2, 12)]


def test_claim_long_history_of_attempts_is_no_obstacle(conn: psycopg.Connection) -> None:
    """A task that was retried is claimed again in the place of its retry."""
    failed = claimed(conn, queue_name="default")
    fail(conn, failed, retryable=False)
    assert retry(conn, failed.result_id) == "retried"
    assert claimed_ids(conn) == [failed.result_id]


def test_claim_answer_is_in_order_and_complete_for_a_big_batch(conn: psycopg.Connection) -> None:
    """A thousand tasks in one call: all of them, each once, in order."""
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, priority)"
        """ select '{"task_path": "a.b"}', md5(n::text), n %% 3 from generate_series(1, 1500) n""",
        [],
    )
    got = claim(conn, 1000, aging_factor=0)
    assert len({t.result_id for t in got}) == 1000
    assert [(-t.priority, t.ready_since, t.result_id) for t in got] == sorted(
        (-t.priority, t.ready_since, t.result_id) for t in got
    )
    assert len(rows(conn, "select from task_runs where status = 'RUNNING'")) == 1000
