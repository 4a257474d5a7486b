"""reproq_save_metadata: what running tasks say of themselves; and the accounts that reproq_complete keeps."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import add, call, claim, claimed, complete, refused, task


def save(conn: psycopg.Connection, *said: tuple[Any, Any]) -> list[str]:
    """Save (attempt, metadata) pairs; the answers."""
    answers = call(
        conn,
        "reproq_save_metadata",
        result_ids=[attempt.result_id for attempt, _ in said],
        lease_tokens=[attempt.lease_token for attempt, _ in said],
        metadata=[None if metadata is None else Jsonb(metadata) for _, metadata in said],
    )
    return [answer.answer for answer in answers]


def test_keys_are_set_and_others_kept(conn: psycopg.Connection) -> None:
    """Top-level keys replace their namesakes; what others wrote stays."""
    got = claimed(conn, metadata_json={"by": "django", "progress": 0})
    assert save(conn, (got, {"progress": 0.5, "note": "half"})) == ["ok"]
    assert task(conn, got.result_id).metadata_json == {"by": "django", "progress": 0.5, "note": "half"}


def test_save_metadata_only_the_holder_may_write(conn: psycopg.Connection) -> None:
    """Another token, an attempt that has ended, a missing task: lost, and nothing is written."""
    got, done = claimed(conn), claimed(conn)
    complete(conn, done)
    stranger = got._replace(lease_token=uuid.uuid4())
    missing = got._replace(result_id=2**62)
    assert save(conn, (stranger, {"x": 1}), (done, {"x": 1}), (missing, {"x": 1})) == ["lost"] * 3
    assert task(conn, got.result_id).metadata_json == {}
    assert task(conn, done.result_id).metadata_json == {}


def test_save_metadata_of_two_in_one_call_the_later_stands(conn: psycopg.Connection) -> None:
    """Repeated ids are answered each."""
    got = claimed(conn)
    assert save(conn, (got, {"progress": 0.1}), (got, {"progress": 0.2})) == ["ok", "ok"]
    assert task(conn, got.result_id).metadata_json == {"progress": 0.2}


@pytest.mark.parametrize("metadata", [None, 1, [], "x", {"big": "x" * 70_000}])
def test_save_metadata_what_is_no_small_object_is_left_out(conn: psycopg.Connection, metadata: Any) -> None:
    """It stops neither the others nor the task."""
    got, other = claimed(conn), claimed(conn)
    assert save(conn, (got, metadata), (other, {"x": 1})) == ["lost", "ok"]
    assert task(conn, got.result_id).metadata_json == {}
    assert task(conn, got.result_id).status == "RUNNING"


def test_save_metadata_whole_is_bounded(conn: psycopg.Connection) -> None:
    """A task that saves ever new keys fills 1 MiB, not the disk; what is there can still be written over."""
    got = claimed(conn)
    answers = [save(conn, (got, {f"k{n}": "x" * 60_000})) for n in range(20)]
    assert answers == [["ok"]] * 17 + [["lost"]] * 3
    assert save(conn, (got, {"k0": "y"})) == ["ok"]
    assert sorted(task(conn, got.result_id).metadata_json) == sorted(f"k{n}" for n in range(17))


def test_metadata_that_is_no_object_is_replaced(conn: psycopg.Connection) -> None:
    """Rows written by hand."""
    got = claimed(conn, metadata_json=[1])
    assert save(conn, (got, {"x": 1})) == ["ok"]
    assert task(conn, got.result_id).metadata_json == {"x": 1}


def test_arrays_of_different_lengths_are_refused(conn: psycopg.Connection) -> None:
    """RQ001 that says which."""
    error = refused(conn, "reproq_save_metadata", result_ids=[1], lease_tokens=[], metadata=[])
    assert error.sqlstate == "RQ001"


def test_save_metadata_success_keeps_its_account(conn: psycopg.Connection) -> None:
    """metadata_json.reproq says what the attempt used; without an account nothing changes."""
    add(conn, metadata_json={"by": "django"})
    add(conn)
    first, second = claim(conn)
    call(
        conn,
        "reproq_complete",
        result_ids=[first.result_id, second.result_id],
        lease_tokens=[first.lease_token, second.lease_token],
        returns=[Jsonb(1), Jsonb(2)],
        accounts=[Jsonb({"cpu_seconds": 0.2}), None],
    )
    assert task(conn, first.result_id).metadata_json == {"by": "django", "reproq": {"cpu_seconds": 0.2}}
    assert task(conn, second.result_id).metadata_json == {}
