"""reproq_release: giving tasks back unharmed."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from tests.sql.calls import add, cancel, chain, claim, claimed, complete, kind, refused, release, statuses, task, update
from tests.support.database import Clock


def test_release_released_task_is_as_before_its_claim(conn: psycopg.Connection, clock: Clock) -> None:
    """READY, the attempt not charged, no error, in its old place: the next claim takes it first."""
    first = add(conn)
    add(conn)
    before = task(conn, first)
    clock.advance(seconds=1)
    (got,) = claim(conn, 1)
    assert release(conn, got) == ["ok"]
    after = task(conn, first)
    assert (after.status, after.attempts, after.lost_count) == ("READY", 0, 0)
    assert (after.enqueued_at, after.run_after, after.errors_json) == (before.enqueued_at, None, [])
    assert (after.lease_token, after.leased_until, after.leased_by) == (None, None, None)
    assert [t.result_id for t in claim(conn, 1)] == [first]


def test_answers_are_those_of_complete(conn: psycopg.Connection) -> None:
    """ok, already, succeeded, lost; one per element, in order."""
    a, b = claimed(conn), claimed(conn)
    complete(conn, b)
    stranger = a._replace(lease_token=uuid.uuid4())
    assert release(conn, b, stranger, a, a) == ["succeeded", "lost", "ok", "already"]
    assert release(conn, a) == ["already"]
    assert release(conn) == []


def test_release_task_whose_cancel_was_requested_ends(conn: psycopg.Connection) -> None:
    """Giving it back must not start it again: cancelled, with what waits for it."""
    first, second = chain(conn, 2, queue_name="q")
    (got,) = claim(conn, 1, queues=["q"])
    cancel(conn, first)
    assert release(conn, got) == ["cancelled"]
    assert release(conn, got) == ["already"]
    assert (kind(conn, first), kind(conn, second)) == ("cancelled", "parent_failed")


def test_release_mixed_batch_of_cancelled_and_others(conn: psycopg.Connection) -> None:
    """Each as it should."""
    a, b = claimed(conn), claimed(conn)
    cancel(conn, b.result_id)
    assert release(conn, a, b) == ["ok", "cancelled"]
    assert statuses(conn, [a.result_id, b.result_id]) == ["READY", "FAILED"]


def test_releases_do_not_wear_a_task_out(conn: psycopg.Connection) -> None:
    """A task of one attempt may be released any number of times and still runs."""
    got = claimed(conn, max_attempts=1)
    for _ in range(5):
        release(conn, got)
        (got,) = claim(conn, 1, queues=[got.queue_name])
    assert got.attempts == 1


def test_impossible_attempts_do_not_get_worse(conn: psycopg.Connection) -> None:
    """attempts 0 while RUNNING (written by other programs) stays 0."""
    got = claimed(conn)
    update(conn, got.result_id, attempts=0)
    assert release(conn, got) == ["ok"]
    assert task(conn, got.result_id).attempts == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"result_ids": None, "lease_tokens": None},
        {"result_ids": [1], "lease_tokens": None},
        {"result_ids": [1], "lease_tokens": []},
        {"result_ids": [], "lease_tokens": [uuid.UUID(int=0)]},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(conn: psycopg.Connection, arguments: dict[str, Any]) -> None:
    """RQ001."""
    assert refused(conn, "reproq_release", **arguments).sqlstate == "RQ001"
