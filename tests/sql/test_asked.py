"""What tasks ask for: another attempt, a later start, a final failure, and that none of their path starts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    add,
    attempts_of,
    call,
    cancel,
    claim,
    claimed,
    complete,
    fail,
    last_error,
    limit_set,
    next_wake,
    reclaim,
    rows,
    task,
    update,
    value,
)
from tests.support.database import Clock

PATH = "app.tasks.run"


def ask(conn: psycopg.Connection, got: Any, kind: str, **more: object) -> Any:
    """Fail an attempt with a wish of this kind, and return the one answer."""
    (answer,) = fail(conn, got, error={"kind": kind, "message": "because", **more})
    return answer


def reasons(conn: psycopg.Connection, result_id: int) -> dict[str, str]:
    return {row.reason: row.detail for row in call(conn, "reproq_explain", result_id=result_id)}


def throttles(conn: psycopg.Connection) -> list[Any]:
    return rows(conn, "select details from reproq_audit_log where what = 'throttle' order by audit_id")


def test_asked_retry_counts_and_comes_when_it_asked(conn: psycopg.Connection, clock: Clock) -> None:
    """The time it gave instead of the backoff; the reason is on record; after the last attempt it is FAILED."""
    got = claimed(conn, max_attempts=2)
    answer = ask(conn, got, "retry_asked", after_seconds=600)
    row = task(conn, got.result_id)
    assert (answer.answer, answer.run_after) == ("retry", clock.now + timedelta(minutes=10))
    assert (row.status, row.attempts, row.run_after) == ("READY", 1, answer.run_after)
    assert (last_error(conn, got.result_id)["kind"], last_error(conn, got.result_id)["message"]) == (
        "retry_asked",
        "because",
    )
    assert reasons(conn, got.result_id)["due_later"].startswith("retry asked for: because; due at ")
    clock.advance(minutes=10)
    (again,) = claim(conn, 1, queues=[got.queue_name])
    assert ask(conn, again, "retry_asked").answer == "failed"
    assert task(conn, got.result_id).last_error == "retry_asked: because"


def test_asked_retry_without_a_time_has_the_backoff(conn: psycopg.Connection, clock: Clock) -> None:
    answer = ask(conn, claimed(conn), "retry_asked")
    assert timedelta(seconds=30) <= answer.run_after - clock.now <= timedelta(seconds=33)


@pytest.mark.parametrize("more", [{"after_seconds": 60}, {"until": "in a minute"}])
def test_asked_snooze_is_not_charged(conn: psycopg.Connection, clock: Clock, more: dict[str, Any]) -> None:
    """Due when it asked, attempts as before the claim, no error; the same call again answers already with the time."""
    got = claimed(conn, max_attempts=1)
    if "until" in more:
        more = {"until": (clock.now + timedelta(minutes=1)).isoformat()}
    answer = ask(conn, got, "snoozed", **more)
    row = task(conn, got.result_id)
    assert (answer.answer, answer.run_after) == ("snoozed", clock.now + timedelta(minutes=1))
    assert (row.status, row.attempts, row.snooze_count, row.errors_json) == ("READY", 0, 1, [])
    assert (row.run_after, row.lease_token, row.last_answer) == (answer.run_after, None, "snoozed")
    assert reasons(conn, got.result_id)["due_later"].startswith("snoozed until ")
    again = ask(conn, got, "snoozed", **more)
    assert (again.answer, again.run_after) == ("already", answer.run_after)
    assert task(conn, got.result_id).snooze_count == 1


def test_asked_snooze_ends_after_a_thousand(conn: psycopg.Connection) -> None:
    """The next one fails for good, whatever attempts are left."""
    got = claimed(conn, snooze_count=1000)
    assert ask(conn, got, "snoozed", after_seconds=1).answer == "failed"
    assert task(conn, got.result_id).last_error == "snooze_limit: it asked to be snoozed more than 1,000 times"


@pytest.mark.parametrize("wrong", [{"after_seconds": "soon"}, {"after_seconds": -1}, {"until": "tomorrow"}, {}])
def test_asked_snooze_with_a_wrong_time_has_the_backoff(
    conn: psycopg.Connection, clock: Clock, wrong: dict[str, Any]
) -> None:
    """A batch cannot fail because of what one task asked for."""
    answer = ask(conn, claimed(conn), "snoozed", **wrong)
    assert timedelta(seconds=30) <= answer.run_after - clock.now <= timedelta(seconds=33)


def test_asked_discard_is_final(conn: psycopg.Connection) -> None:
    got = claimed(conn, max_attempts=5)
    assert ask(conn, got, "discarded").answer == "failed"
    assert task(conn, got.result_id).last_error == "discarded: because"


@pytest.mark.parametrize("kind", ["snoozed", "throttled"])
def test_asked_for_after_a_cancel_ends_the_task(conn: psycopg.Connection, kind: str) -> None:
    """It would start again only to be cancelled."""
    got = claimed(conn)
    cancel(conn, got.result_id)
    assert ask(conn, got, kind, after_seconds=60).answer == "cancelled"
    assert last_error(conn, got.result_id)["kind"] == "cancelled"
    assert rows(conn, "select from rate_limits where throttled_until is not null") == []


def test_asked_throttle_stops_the_path_until_then(conn: psycopg.Connection, clock: Clock) -> None:
    """No task of the path starts before, labelled or not; others do; next_wake and explain say when."""
    got = claimed(conn, queue_name="q")
    waiting = [add(conn, queue_name="q") for _ in range(3)]
    answer = ask(conn, got, "throttled", after_seconds=50)
    until = clock.now + timedelta(seconds=50)
    row = task(conn, got.result_id)
    assert (answer.answer, answer.run_after, row.status, row.attempts) == ("throttled", until, "READY", 0)
    later = add(conn, queue_name="q")
    update(conn, waiting[0], limit_key="")
    other = add(conn, queue_name="q", task_path="app.tasks.other")
    assert [found.result_id for found in claim(conn, queues=["q"])] == [other]
    assert claim(conn, queues=["q"]) == []
    assert next_wake(conn, "q") == timedelta(seconds=50, microseconds=1)
    for result_id in (got.result_id, later):
        assert reasons(conn, result_id)["rate_limit"].startswith("throttled until ")
    clock.set(until - timedelta(microseconds=1))
    assert claim(conn, queues=["q"]) == []
    clock.set(until)
    assert {found.result_id for found in claim(conn, queues=["q"])} == {got.result_id, *waiting, later}


def test_asked_throttle_of_a_path_with_a_rate(conn: psycopg.Connection, clock: Clock) -> None:
    """Nothing until then, one start at that moment, and from then on its rate."""
    limit_set(conn, f"task:{PATH}", 1.0, 10)
    got = claimed(conn, queue_name="q")
    for _ in range(5):
        add(conn, queue_name="q")
    ask(conn, got, "throttled", after_seconds=60)
    clock.advance(seconds=59)
    assert claim(conn, queues=["q"]) == []
    clock.advance(seconds=1)
    assert len(claim(conn, queues=["q"])) == 1
    clock.advance(seconds=2)
    assert len(claim(conn, queues=["q"])) == 2


def test_asked_throttle_only_grows_and_is_audited_once_an_hour(conn: psycopg.Connection, clock: Clock) -> None:
    """A shorter wish changes nothing; limit_rm ends it; reclaim forgets it an hour after its end."""
    batch = [claimed(conn) for _ in range(3)]
    for got, seconds in zip(batch, (60, 120, 30), strict=True):
        ask(conn, got, "throttled", after_seconds=seconds)
    (limit,) = rows(conn, "select * from reproq_limits where key = %s", [f"task:{PATH}"])
    assert limit.throttled_until == clock.now + timedelta(seconds=120)
    assert len(throttles(conn)) == 1
    assert value(conn, "select reproq_limit_rm(%s)", [f"task:{PATH}"]) is True
    assert len(claim(conn, queues=[batch[0].queue_name])) == 1

    ask(conn, claimed(conn), "throttled", after_seconds=60)
    clock.advance(minutes=59)
    reclaim(conn)
    assert len(rows(conn, "select from rate_limits where key like 'task:%'")) == 1
    clock.advance(minutes=3)
    reclaim(conn)
    assert rows(conn, "select from rate_limits where key like 'task:%'") == []


def test_asked_in_one_batch(conn: psycopg.Connection) -> None:
    """Each element its own answer, in order; an attempt that had completed stays so."""
    done, *others = [claimed(conn) for _ in range(6)]
    complete(conn, done)
    kinds = ["app_error", "retry_asked", "snoozed", "throttled", "discarded", "app_error"]
    errors = [Jsonb({"kind": kind, "after_seconds": 5}) for kind in kinds]
    answers = call(conn, "reproq_fail", **attempts_of([done, *others]), errors=errors, retryable=[None] * 6)
    assert [row.answer for row in answers] == ["succeeded", "retry", "snoozed", "throttled", "failed", "retry"]
    assert task(conn, done.result_id).status == "SUCCESSFUL"
