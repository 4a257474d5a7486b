"""reproq_fail: retry or end, what is recorded, and arguments."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    add,
    call,
    cancel,
    claim,
    claimed,
    complete,
    fail,
    last_error,
    refused,
    release,
    rows,
    task,
    update,
    value,
)
from tests.support.database import Clock

CURABLE = ["app_error", "timeout", "lease_expiry", "crashed", "something new", ""]
INCURABLE = [
    "cancelled",
    "expired",
    "invalid_spec",
    "invalid_result",
    "payload_too_large",
    "security_violation",
    "workflow_failed",
    "parent_failed",
    "discarded",
    "snooze_limit",
]
NO_TOKEN = uuid.UUID(int=0)


def test_fail_failed_attempt_is_retried_after_its_backoff(conn: psycopg.Connection, clock: Clock) -> None:
    """READY at now + backoff, the attempt charged, the error on record; not claimable before."""
    got = claimed(conn)
    (answer,) = fail(conn, got, error={"kind": "timeout", "message": "slow", "traceback": "t", "exit_status": 3})
    row = task(conn, got.result_id)
    assert (answer.result_id, answer.answer, answer.run_after) == (got.result_id, "retry", row.run_after)
    assert timedelta(seconds=30) <= row.run_after - clock.now <= timedelta(seconds=33)
    assert (row.status, row.attempts, row.lost_count, row.lease_token) == ("READY", 1, 0, None)
    assert (row.last_error, row.failed_at, row.finished_at) == (None, None, None)
    entry = last_error(conn, got.result_id)
    assert {key: entry[key] for key in ("kind", "message", "traceback", "exit_status")} == {
        "kind": "timeout",
        "message": "slow",
        "traceback": "t",
        "exit_status": 3,
    }
    assert (entry["attempt"], entry["worker_id"], entry["task_path"]) == (1, "w1", "app.tasks.run")
    assert value(conn, "select %s::timestamptz", [entry["at"]]) == clock.now
    clock.set(row.run_after - timedelta(microseconds=1))
    assert claim(conn, queues=[got.queue_name]) == []
    clock.set(row.run_after)
    assert len(claim(conn, queues=[got.queue_name])) == 1


def test_fail_last_attempt_fails_for_good(conn: psycopg.Connection, clock: Clock) -> None:
    """Whatever the kind, no more than max_attempts; then FAILED with a summary."""
    got = claimed(conn, max_attempts=2)
    assert [row.answer for row in fail(conn, got)] == ["retry"]
    clock.advance(hours=1)
    (again,) = claim(conn, 1, queues=[got.queue_name])
    (answer,) = fail(conn, again, error={"kind": "crashed", "message": "oom\nkilled"}, logs_uris=["file:///l"])
    row = task(conn, got.result_id)
    assert (answer.answer, answer.run_after) == ("failed", None)
    assert (row.status, row.attempts, row.last_error) == ("FAILED", 2, "crashed: oom killed")
    assert (row.finished_at, row.failed_at, row.logs_uri) == (clock.now, clock.now, "file:///l")
    assert [entry["attempt"] for entry in row.errors_json] == [1, 2]


@pytest.mark.parametrize("kind", CURABLE)
@pytest.mark.parametrize(("retryable", "expected"), [(None, "retry"), (True, "retry"), (False, "failed")])
def test_curable_kinds(conn: psycopg.Connection, kind: str, retryable: bool | None, expected: str) -> None:
    """Retried unless the caller says no."""
    assert [row.answer for row in fail(conn, claimed(conn), error={"kind": kind}, retryable=retryable)] == [expected]


@pytest.mark.parametrize("kind", INCURABLE)
@pytest.mark.parametrize("retryable", [None, True])
def test_incurable_kinds(conn: psycopg.Connection, kind: str, retryable: bool | None) -> None:
    """They end at once, whatever the caller says."""
    got = claimed(conn, max_attempts=9)
    assert [row.answer for row in fail(conn, got, error={"kind": kind}, retryable=retryable)] == ["failed"]


def test_fail_cancel_request_ends_the_retries(conn: psycopg.Connection) -> None:
    """A task whose cancel was requested is not run again."""
    got = claimed(conn, max_attempts=9)
    cancel(conn, got.result_id)
    assert [row.answer for row in fail(conn, got)] == ["failed"]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ({}, "app_error", ""),
        (None, "app_error", ""),
        ("just text", "app_error", "just text"),
        ([1, 2], "app_error", "[1, 2]"),
        (5, "app_error", "5"),
        (False, "app_error", "false"),
        ({"kind": None, "message": None}, "app_error", ""),
        ({"kind": 5, "message": {"a": 1}}, "5", '{"a": 1}'),
        ({"kind": "k" * 100, "message": "m" * 10000}, "k" * 64, "m" * 8192),
        ({"kind": "x", "message": "ä" * 9000}, "x", "ä" * 8192),  # cut at a character
    ],
)
@pytest.mark.parametrize("retryable", [None, False])
def test_any_error_is_recorded(
    conn: psycopg.Connection, error: Any, kind: str, message: str, retryable: bool | None
) -> None:
    """Any failure is one entry with kind and message, bounded, on retry and at the end."""
    got = claimed(conn)
    call(
        conn,
        "reproq_fail",
        result_ids=[got.result_id],
        lease_tokens=[got.lease_token],
        errors=[Jsonb(error)],
        retryable=[retryable],
    )
    row = task(conn, got.result_id)
    assert len(row.errors_json) == 1
    assert (row.errors_json[0]["kind"], row.errors_json[0]["message"]) == (kind, message)
    if row.status == "FAILED":
        assert row.last_error.startswith(f"{kind}: ")
        assert len(row.last_error) <= 1000


@pytest.mark.parametrize("retryable", [None, False])
def test_fail_no_error_at_all_is_recorded_too(conn: psycopg.Connection, retryable: bool | None) -> None:
    """SQL null as the error: an app_error without a message, on retry and at the end."""
    got = claimed(conn)
    call(
        conn,
        "reproq_fail",
        result_ids=[got.result_id],
        lease_tokens=[got.lease_token],
        errors=[None],
        retryable=[retryable],
    )
    assert last_error(conn, got.result_id)["kind"] == "app_error"


def test_fail_long_traceback_keeps_its_end(conn: psycopg.Connection) -> None:
    """The last 65,536 characters: the innermost frames."""
    got = claimed(conn)
    fail(conn, got, error={"kind": "app_error", "traceback": "x" * 70000 + "end"})
    traceback = last_error(conn, got.result_id)["traceback"]
    assert (len(traceback), traceback[-4:]) == (65536, "xend")


def test_fail_history_is_bounded(conn: psycopg.Connection, clock: Clock) -> None:
    """The last ten errors, in order."""
    got = claimed(conn, max_attempts=100)
    for _ in range(12):
        fail(conn, got)
        clock.advance(hours=2)
        (got,) = claim(conn, 1, queues=[got.queue_name])
    assert [entry["attempt"] for entry in task(conn, got.result_id).errors_json] == list(range(3, 13))


@pytest.mark.parametrize("backoff", [0, 0.5, 7, 3600, 10**9, -1, "7", None, [1], 1e300])
def test_fail_backoff_of_the_spec_counts_and_cannot_break_a_failure(
    conn: psycopg.Connection, clock: Clock, backoff: Any
) -> None:
    """A finite number >= 0 is taken, capped at an hour; anything else means 30."""
    expected = min(backoff, 3600) if isinstance(backoff, (int, float)) and backoff >= 0 else 30
    got = claimed(conn, spec_json={"task_path": "a.b", "exec": {"backoff_seconds": backoff}})
    (answer,) = fail(conn, got)
    seconds = (answer.run_after - clock.now).total_seconds()
    assert expected <= seconds <= min(expected * 1.1 + 0.001, 3600)


@pytest.mark.parametrize("number", ["1e-400", "1e-16000", "-1e-400", "1e100000"])
def test_fail_backoff_that_no_float_can_hold_cannot_break_a_failure(conn: psycopg.Connection, number: str) -> None:
    """jsonb numbers reach further than double precision; a failure is recorded all the same."""
    got = claimed(conn, spec_json={"task_path": "a.b"})
    conn.execute(
        "update task_runs set spec_json = %s where result_id = %s",
        [f'{{"task_path": "a.b", "exec": {{"backoff_seconds": {number}}}}}', got.result_id],
    )
    assert [row.answer for row in fail(conn, got)] == ["retry"]


@pytest.mark.parametrize("spec", [{"exec": 5}, {"exec": None}, {"exec": []}, {"exec": {"backoff_seconds": {}}}, {}])
def test_fail_spec_without_sense_cannot_break_a_failure(
    conn: psycopg.Connection, clock: Clock, spec: dict[str, Any]
) -> None:
    """Thirty seconds, then."""
    got = claimed(conn, spec_json={"task_path": "a.b", **spec})
    (answer,) = fail(conn, got)
    assert answer.run_after - clock.now >= timedelta(seconds=30)


def test_answers_of_a_mixed_batch(conn: psycopg.Connection) -> None:
    """Each element has its own answer, error, retryable and logs, in order; repeats count once."""
    a, b, c, d = claimed(conn), claimed(conn), claimed(conn, max_attempts=1), claimed(conn)
    complete(conn, a)
    batch = [a, b, c, d, b]
    answers = call(
        conn,
        "reproq_fail",
        result_ids=[t.result_id for t in batch] + [0],
        lease_tokens=[t.lease_token for t in batch] + [NO_TOKEN],
        errors=[Jsonb({"kind": "app_error", "message": str(n)}) for n in range(6)],
        retryable=[None, True, True, False, None, None],
        logs_uris=["l0", "l1", "l2", "l3", "l4", "l5"],
    )
    assert [row.answer for row in answers] == ["succeeded", "retry", "failed", "failed", "already", "lost"]
    assert [row.run_after is not None for row in answers] == [False, True, False, False, False, False]
    assert [last_error(conn, t.result_id)["message"] for t in (b, c, d)] == ["1", "2", "3"]
    assert [task(conn, t.result_id).logs_uri for t in (a, b, c, d)] == [None, "l1", "l2", "l3"]


def test_fail_repeated_call_says_already(conn: psycopg.Connection, clock: Clock) -> None:
    """`already` for retry and failure, also after the task was claimed again; a success is not what was said: lost."""
    got = claimed(conn)
    fail(conn, got)
    again_at = task(conn, got.result_id).run_after
    assert [(row.answer, row.run_after) for row in fail(conn, got)] == [("already", again_at)]
    clock.advance(hours=1)
    (again,) = claim(conn, 1, queues=[got.queue_name])
    assert [row.answer for row in fail(conn, got)] == ["already"]
    assert complete(conn, got) == ["lost"]
    assert release(conn, again) == ["ok"]
    assert [row.answer for row in fail(conn, again)] == ["already"]
    assert [row.answer for row in fail(conn, got)] == ["lost"]  # two attempts ago


@pytest.mark.parametrize(
    "arguments",
    [
        {"result_ids": None, "lease_tokens": None, "errors": None, "retryable": None},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "errors": [Jsonb(1)], "retryable": []},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "errors": [Jsonb(1)], "retryable": None},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "errors": None, "retryable": [True]},
        {"result_ids": [1], "lease_tokens": None, "errors": [Jsonb(1)], "retryable": [True]},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "errors": [Jsonb(1)], "retryable": [True], "logs_uris": []},
        {"result_ids": [], "lease_tokens": [], "errors": [Jsonb(1)], "retryable": []},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(conn: psycopg.Connection, arguments: dict[str, Any]) -> None:
    """RQ001."""
    assert refused(conn, "reproq_fail", **arguments).sqlstate == "RQ001"


def test_attempts_past_the_maximum_fail_for_good(conn: psycopg.Connection) -> None:
    """A row whose attempts exceed its maximum (written by other programs) ends at its next failure."""
    got = claimed(conn)
    update(conn, got.result_id, attempts=9)
    assert [row.answer for row in fail(conn, got)] == ["failed"]


@pytest.mark.parametrize(("attempt", "low"), [(1, 30), (2, 60), (3, 120), (7, 1920), (8, 3600), (1000, 3600)])
def test_backoff_doubles_up_to_an_hour(conn: psycopg.Connection, attempt: int, low: float) -> None:
    """30 s x 2^(attempt - 1), at most a tenth more by chance, at most an hour."""
    found = rows(
        conn, "select extract(epoch from _reproq_backoff('{}', %s))::float8 as s from generate_series(1, 50)", [attempt]
    )
    assert all(low <= row.s <= min(3600, low * 1.1) for row in found)
    assert low == 3600 or len({row.s for row in found}) > 25  # spread


@pytest.mark.parametrize("attempt", [0, -5, 2**31 - 1])
def test_backoff_of_impossible_attempts_is_finite(conn: psycopg.Connection, attempt: int) -> None:
    """Attempts below one count as the first; the largest does not overflow."""
    seconds = value(conn, "select extract(epoch from _reproq_backoff('{}', %s))::float8", [attempt])
    assert 30 <= seconds <= 3600


def test_fail_failure_frees_nothing_it_should_not(conn: psycopg.Connection) -> None:
    """A retried task does not keep its lock key: it goes to the next one while the task waits."""
    first = add(conn, lock_key="k")
    second = add(conn, lock_key="k")
    (got,) = claim(conn)
    assert got.result_id == first
    fail(conn, got)
    assert [t.result_id for t in claim(conn)] == [second]
