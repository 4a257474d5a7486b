"""reproq_complete_and_claim: a completion and the claim that follows it, in one transaction."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import MINUTE, Row, add, add_many, call, claim, refused, task


def complete_and_claim(conn: psycopg.Connection, *attempts: Row, limit: int = 1, **changes: Any) -> list[Row]:
    """Complete these attempts and claim as many tasks as `limit` says."""
    return call(conn, "reproq_complete_and_claim", **arguments_of(*attempts, limit=limit, **changes))


def arguments_of(*attempts: Row, limit: int = 1, **changes: Any) -> dict[str, Any]:
    arguments = {
        "result_ids": [attempt.result_id for attempt in attempts],
        "lease_tokens": [attempt.lease_token for attempt in attempts],
        "returns": [Jsonb(True) for _ in attempts],
        "logs_uris": None,
        "accounts": None,
        "worker_id": "w",
        "queues": ["default"],
        "limit": limit,
        "lease": MINUTE,
    }
    return {**arguments, **changes}


def test_complete_and_claim_answers_first_and_then_gives_the_tasks(conn: psycopg.Connection) -> None:
    """A column tells them apart; tasks have all that a claim gives, each its own lease, in order."""
    ids = add_many(conn, 5)
    first, second = claim(conn, 2)
    got = complete_and_claim(conn, second, first, limit=2)
    assert [(row.answer, row.result_id) for row in got] == [
        ("ok", ids[1]), ("ok", ids[0]), (None, ids[2]), (None, ids[3])
    ]  # fmt: skip
    for row in got[2:]:
        stored = task(conn, row.result_id)
        assert (stored.status, stored.lease_token, stored.leased_by) == ("RUNNING", row.lease_token, "w")
        assert (row.spec_json, row.attempts, row.queue_name) == (stored.spec_json, 1, "default")
    assert task(conn, ids[4]).status == "READY"


def test_complete_and_claim_repeated_completion_says_already_and_claims(conn: psycopg.Connection) -> None:
    """The answers about attempts decide nothing about the claim."""
    ids = add_many(conn, 2)
    (got,) = claim(conn, 1)
    complete_and_claim(conn, got, queues=["other"])
    again = complete_and_claim(conn, got)
    assert [(row.answer, row.result_id) for row in again] == [("already", ids[0]), (None, ids[1])]


@pytest.mark.parametrize(
    "key", [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 1}], ids=["lock", "concurrency"]
)
def test_complete_and_claim_takes_the_next_task_of_the_key(conn: psycopg.Connection, key: dict[str, Any]) -> None:
    """The completion frees a key; the claim of the same call may use it."""
    ids = add_many(conn, 3, **key)
    (got,) = claim(conn, 3)
    again = complete_and_claim(conn, got, limit=2)
    assert [(row.answer, row.result_id) for row in again] == [("ok", ids[0]), (None, ids[1])]


def test_complete_and_claim_takes_the_next_step_of_a_chain(conn: psycopg.Connection) -> None:
    """What the completion made READY may start at once."""
    first = add(conn)
    second = add(conn, status="WAITING", parent_id=first, wait_count=1)
    (got,) = claim(conn, 1)
    assert [row.result_id for row in complete_and_claim(conn, got)] == [first, second]


def test_complete_and_claim_claims_nothing_while_a_bucket_has_a_rate(conn: psycopg.Connection) -> None:
    """It would wait for the bucket and hold what the completion locked. The completion counts all the same."""
    ids = add_many(conn, 2)
    (got,) = claim(conn, 1)
    conn.execute("select reproq_limit_set('queue:other', 1, 1)")
    assert [(row.answer, row.result_id) for row in complete_and_claim(conn, got)] == [("ok", ids[0])]
    assert task(conn, ids[0]).status == "SUCCESSFUL"


def test_complete_and_claim_refused_claim_stores_nothing(conn: psycopg.Connection) -> None:
    """Both or neither: the caller repeats the completion by itself."""
    add_many(conn, 2)
    (got,) = claim(conn, 1)
    error = refused(conn, "reproq_complete_and_claim", **arguments_of(got, limit=0))
    assert error.sqlstate == "RQ001"
    assert task(conn, got.result_id).status == "RUNNING"
