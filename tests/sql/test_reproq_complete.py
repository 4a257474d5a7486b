"""reproq_complete: good ends, the fence, and arguments."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    add,
    add_many,
    call,
    cancel,
    claim,
    claimed,
    complete,
    fail,
    refused,
    release,
    rows,
    task,
    update,
)
from tests.support.database import Clock

NO_TOKEN = uuid.UUID(int=0)


def test_complete_completed_task_is_final_and_keeps_its_result(conn: psycopg.Connection, clock: Clock) -> None:
    """SUCCESSFUL with result, end and logs; lease and errors of now gone; the attempt stays charged."""
    got = claimed(conn)
    clock.advance(seconds=3)
    assert complete(conn, got, returns=[{"n": [1, None, "ä"]}], logs_uris=["file:///x.log"]) == ["ok"]
    row = task(conn, got.result_id)
    assert (row.status, row.return_json, row.logs_uri) == ("SUCCESSFUL", {"n": [1, None, "ä"]}, "file:///x.log")
    assert (row.finished_at, row.updated_at, row.attempts) == (clock.now, clock.now, 1)
    assert (row.lease_token, row.leased_until, row.leased_by, row.leased_incarnation) == (None, None, None, None)
    assert (row.errors_json, row.last_error, row.failed_at, row.last_answer) == ([], None, None, "ok")


def test_complete_repeated_call_says_already_and_changes_nothing(conn: psycopg.Connection) -> None:
    """The same token again is `already`, from what says otherwise `succeeded`; the first outcome stays."""
    got = claimed(conn)
    complete(conn, got, returns=[1])
    before = task(conn, got.result_id)
    assert complete(conn, got, returns=[2]) == ["already"]
    assert [row.answer for row in fail(conn, got)] == ["succeeded"]
    assert release(conn, got) == ["succeeded"]
    assert task(conn, got.result_id) == before


def test_complete_only_the_token_of_the_attempt_counts(conn: psycopg.Connection) -> None:
    """A stale attempt, another task's token, null and a token of no attempt are `lost` and change nothing."""
    old = claimed(conn)
    release(conn, old)
    (new,) = claim(conn, 1, queues=[old.queue_name])
    other = claimed(conn)
    before = task(conn, new.result_id)
    for token in (other.lease_token, NO_TOKEN, None):
        (answer,) = call(conn, "reproq_complete", result_ids=[new.result_id], lease_tokens=[token], returns=[Jsonb(1)])
        assert (answer.result_id, answer.answer) == (new.result_id, "lost")
    assert complete(conn, old) == ["lost"]  # it was released: this success is not stored
    assert task(conn, new.result_id) == before
    assert complete(conn, new) == ["ok"]


@pytest.mark.parametrize("result_id", [0, -1, 2**63 - 1, -(2**63), None])
def test_ids_that_are_no_task_are_lost(conn: psycopg.Connection, result_id: int | None) -> None:
    """An unknown id is an answer, not an error."""
    (answer,) = call(conn, "reproq_complete", result_ids=[result_id], lease_tokens=[NO_TOKEN], returns=[Jsonb(1)])
    assert (answer.result_id, answer.answer) == (result_id, "lost")


def test_tasks_that_no_worker_runs_are_lost(conn: psycopg.Connection) -> None:
    """READY, WAITING and final tasks have no token, so none fits; a null token fits nothing."""
    ids = [add(conn, status=status) for status in ("READY", "WAITING", "SUCCESSFUL", "FAILED", "CANCELLED")]
    answers = call(conn, "reproq_complete", result_ids=ids, lease_tokens=[None] * 5, returns=[Jsonb(1)] * 5)
    assert [a.answer for a in answers] == ["lost"] * 5


def test_complete_one_answer_per_element_in_order(conn: psycopg.Connection) -> None:
    """Mixed and repeated elements: each has its own answer at its own place; a repeated one is ended once."""
    a, b, c = claimed(conn), claimed(conn), claimed(conn)
    complete(conn, c)
    ids = [c.result_id, b.result_id, a.result_id, b.result_id, 0, a.result_id]
    tokens = [c.lease_token, b.lease_token, a.lease_token, b.lease_token, NO_TOKEN, NO_TOKEN]
    answers = call(conn, "reproq_complete", result_ids=ids, lease_tokens=tokens, returns=[Jsonb(n) for n in range(6)])
    assert [row.result_id for row in answers] == ids
    assert [row.answer for row in answers] == ["already", "ok", "ok", "already", "lost", "lost"]
    assert (task(conn, a.result_id).return_json, task(conn, b.result_id).return_json) == (2, 1)


def test_complete_batch_of_a_thousand(conn: psycopg.Connection) -> None:
    """All of them, each with its own result."""
    add_many(conn, 1000)
    got = claim(conn, 1000)
    assert set(complete(conn, *got, returns=[t.result_id for t in got])) == {"ok"}
    assert rows(conn, "select from task_runs where return_json <> to_jsonb(result_id)") == []


def test_complete_hundred_thousand_ids(conn: psycopg.Connection) -> None:
    """A call about nothing of ours is answered, whatever its size."""
    answers = conn.execute(
        "select answer, count(*) from reproq_complete("
        " array(select g from generate_series(1000000001, 1000100000) g),"
        " array_fill(gen_random_uuid(), array[100000]), array_fill('1'::jsonb, array[100000])) group by 1"
    ).fetchall()
    assert answers == [("lost", 100000)]


def test_complete_empty_call_does_nothing(conn: psycopg.Connection) -> None:
    """No elements, no rows."""
    assert call(conn, "reproq_complete", result_ids=[], lease_tokens=[], returns=[]) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"result_ids": None, "lease_tokens": [], "returns": []},
        {"result_ids": None, "lease_tokens": None, "returns": None, "logs_uris": None},
        {"result_ids": [1], "lease_tokens": None, "returns": [Jsonb(1)]},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "returns": None},
        {"result_ids": [1], "lease_tokens": [], "returns": [Jsonb(1)]},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "returns": [Jsonb(1), Jsonb(2)]},
        {"result_ids": [], "lease_tokens": [NO_TOKEN], "returns": []},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "returns": [Jsonb(1)], "logs_uris": []},
        {"result_ids": [1], "lease_tokens": [NO_TOKEN], "returns": [Jsonb(1)], "logs_uris": ["a", "b"]},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(conn: psycopg.Connection, arguments: dict[str, Any]) -> None:
    """RQ001, with the lengths."""
    assert refused(conn, "reproq_complete", **arguments).sqlstate == "RQ001"


@pytest.mark.parametrize(
    "result", ["\\u0041", "x" * 2**20, {"a": {"b": [1] * 1000}}, [], {}, 0, False, "", 2**53 + 1, -0.5, None]
)
def test_any_json_is_a_result(conn: psycopg.Connection, result: Any) -> None:
    """What jsonb can hold is kept as it is."""
    got = claimed(conn)
    assert complete(conn, got, returns=[result]) == ["ok"]
    assert task(conn, got.result_id).return_json == result


def test_complete_no_result_at_all_is_a_result(conn: psycopg.Connection) -> None:
    """SQL null completes too."""
    got = claimed(conn)
    answers = call(conn, "reproq_complete", result_ids=[got.result_id], lease_tokens=[got.lease_token], returns=[None])
    assert [a.answer for a in answers] == ["ok"]
    assert task(conn, got.result_id).return_json is None


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ('"\\u0000"', "22P05"),
        ('"\\ud800"', "22P02"),
        ("1e200000", "22003"),
        ("NaN", "22P02"),
        ("[" * 20000 + "]" * 20000, "54001"),
        ("", "22P02"),
    ],
)
def test_complete_what_jsonb_cannot_hold_is_refused_by_the_cast_and_the_attempt_goes_on(
    conn: psycopg.Connection, text: str, sqlstate: str
) -> None:
    """The error comes before anything happened; the caller ends the attempt as invalid_result instead."""
    got = claimed(conn)
    error = refused(conn, "reproq_complete", result_ids=[got.result_id], lease_tokens=[got.lease_token], returns=[text])
    assert error.sqlstate == sqlstate
    assert [row.answer for row in fail(conn, got, error={"kind": "invalid_result", "message": "NUL"})] == ["failed"]


def test_complete_success_after_a_cancel_request_stays_a_success(conn: psycopg.Connection) -> None:
    """The first definite outcome wins."""
    got = claimed(conn)
    assert cancel(conn, got.result_id) == "requested"
    assert complete(conn, got, returns=[1]) == ["ok"]
    assert task(conn, got.result_id).status == "SUCCESSFUL"


def test_complete_completion_after_the_lease_is_accepted_while_the_token_fits(
    conn: psycopg.Connection, clock: Clock
) -> None:
    """Harmless, so it counts; once reclaimed it is lost."""
    late, too_late = claimed(conn), claimed(conn)
    clock.advance(hours=1)
    assert complete(conn, late) == ["ok"]
    conn.execute("select * from reproq_reclaim()")
    assert complete(conn, too_late) == ["lost"]
    assert task(conn, too_late.result_id).status == "READY"


def test_errors_of_earlier_attempts_stay(conn: psycopg.Connection, clock: Clock) -> None:
    """A success after a failure keeps the history and has no last_error, also after a retry by another program."""
    got = claimed(conn)
    fail(conn, got)
    clock.advance(hours=1)
    (again,) = claim(conn, 1, queues=[got.queue_name])
    complete(conn, again)
    row = task(conn, got.result_id)
    assert (row.status, row.attempts, len(row.errors_json), row.last_error) == ("SUCCESSFUL", 2, 1, None)
    for keys in ({}, {"lock_key": "k"}):
        failed = add(conn, status="FAILED", last_error="app_error: once", failed_at=clock.now, **keys)
        update(conn, failed, status="READY")
        complete(conn, *claim(conn, 1))
        row = task(conn, failed)
        assert (row.status, row.last_error, row.failed_at) == ("SUCCESSFUL", None, None)


def test_more_than_a_hundred_keyed_tasks_in_one_call_are_done_in_parts(conn: psycopg.Connection) -> None:
    """The first hundred end, the others are busy: a batch cannot exhaust the lock table."""
    for number in range(130):
        add(conn, lock_key=f"key {number}")
    got = claim(conn, 200)
    answers = complete(conn, *got)
    assert (answers.count("ok"), answers.count("busy")) == (100, 30)
    assert sorted(set(complete(conn, *got))) == ["already", "ok"]


def test_complete_lease_of_an_earlier_day_is_no_obstacle(conn: psycopg.Connection, clock: Clock) -> None:
    """Ends are stored by the database's clock, even one that steps back."""
    got = claimed(conn)
    clock.set(clock.now - timedelta(days=1))
    assert complete(conn, got) == ["ok"]
    assert task(conn, got.result_id).finished_at == clock.now
