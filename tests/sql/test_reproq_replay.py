"""reproq_replay and reproq_replay_by_hash: a new task with the spec of an old one."""

from __future__ import annotations

import psycopg
import pytest

from tests.sql.calls import add, call, chord, claim, complete, rows, task, value
from tests.support.database import Clock


def replay(conn: psycopg.Connection, result_id: int | None) -> tuple[int | None, str]:
    ((found, answer),) = call(conn, "reproq_replay", result_id=result_id)
    return found, answer


def test_replay_copy_with_the_same_spec(conn: psycopg.Connection, clock: Clock) -> None:
    """replayed: READY and due now, spec, keys and attempts of the old one, which stays as it was."""
    enqueued = value(
        conn,
        "select reproq_enqueue('app.tasks.run', p_args => '[1]', p_queue_name => 'q', p_priority => 7,"
        " p_lock_key => 'l', p_concurrency_key => 'c', p_concurrency_limit => 2, p_max_attempts => 5,"
        " p_timeout_seconds => 10, p_run_after => reproq_now() + interval '1 h',"
        " p_expires_at => reproq_now() + interval '2 h', p_dedupe => true)",
    )
    clock.advance(hours=1)
    complete(conn, *claim(conn, 1, queues=["q"]))
    before = task(conn, enqueued)
    new, answer = replay(conn, enqueued)
    assert answer == "replayed"
    assert new is not None
    assert task(conn, enqueued) == before
    copy = task(conn, new)
    same = ("queue_name", "priority", "spec_json", "spec_hash", "task_path", "lock_key", "concurrency_key",
            "concurrency_limit", "max_attempts", "timeout_seconds")  # fmt: skip
    assert [getattr(copy, name) for name in same] == [getattr(before, name) for name in same]
    assert (copy.status, copy.run_after, copy.expires_at, copy.attempts) == ("READY", None, None, 0)
    assert [t.result_id for t in claim(conn, 1, queues=["q"])] == [new]


def test_replay_active_duplicate_is_an_answer(conn: psycopg.Connection) -> None:
    """already_active, with its id: the copy of before, or the task itself."""
    first = value(conn, "select reproq_enqueue('app.tasks.run', p_dedupe => true)")
    assert replay(conn, first) == (first, "already_active")
    complete(conn, *claim(conn))
    second, _ = replay(conn, first)
    assert replay(conn, first) == (second, "already_active")
    assert value(conn, "select count(*) from task_runs") == 2


@pytest.mark.parametrize("result_id", [0, -1, 2**63 - 1, None])
def test_replay_no_such_task_is_missing(conn: psycopg.Connection, result_id: int | None) -> None:
    """An answer, not an error, and nothing is enqueued."""
    assert replay(conn, result_id) == (None, "missing")
    assert rows(conn, "select 1 from task_runs") == []


def test_replay_member_is_replayed_on_its_own(conn: psycopg.Connection) -> None:
    """Its copy counts for no chord, and may be made again and again: steps have random hashes."""
    _, (member, _), callback = chord(conn, 2)
    copies = [replay(conn, member) for _ in range(2)]
    assert [answer for _, answer in copies] == ["replayed"] * 2
    for result_id, _ in copies:
        assert result_id is not None
        found = task(conn, result_id)
        assert (found.workflow_id, found.parent_id, found.wait_count) == (None, None, 0)
    new, answer = replay(conn, callback)
    assert answer == "replayed"
    assert new is not None
    assert task(conn, new).status == "READY"


def test_by_hash_the_newest(conn: psycopg.Connection) -> None:
    """source_id says which; no row when no task has the hash."""
    for _ in range(2):
        last = add(conn, status="SUCCESSFUL", spec_hash="a" * 64)
    ((source, new, answer),) = call(conn, "reproq_replay_by_hash", spec_hash="a" * 64)
    assert (source, answer) == (last, "replayed")
    assert new > last
    for unknown in ("b" * 64, "", None):
        assert call(conn, "reproq_replay_by_hash", spec_hash=unknown) == []


def test_replay_is_in_the_audit_log(conn: psycopg.Connection) -> None:
    """What was copied, into what; an answer that changes nothing leaves no row."""
    old = add(conn, status="FAILED")
    new, _ = replay(conn, old)
    replay(conn, None)
    ((_, _, _, _, what, details, _),) = call(conn, "reproq_audit")
    assert (what, details) == ("replay", {"result_id": old, "new": new})
