"""reproq_chain, reproq_group and reproq_chord: workflows built in SQL, atomic."""

from __future__ import annotations

import time
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import Row, call, claim, complete, fail_for_good, kind, refused, rows, statuses, task, workflow
from tests.support.database import Clock

BUILDERS: tuple[LiteralString, ...] = ("reproq_chain", "reproq_group", "reproq_chord")
CALLBACK = {"task_path": "app.tasks.collect"}


def build(conn: psycopg.Connection, function: LiteralString, tasks: Any, callback: Any = CALLBACK) -> list[Row]:
    """Call a builder; the callback is for the chord."""
    more = {"callback": Jsonb(callback)} if function == "reproq_chord" else {}
    return call(conn, function, tasks=Jsonb(tasks), **more)


def some(number: int) -> list[dict[str, Any]]:
    return [{"task_path": "app.tasks.run", "args": [n]} for n in range(number)]


def test_workflows_chain_runs_step_by_step(conn: psycopg.Connection) -> None:
    """One row a step in order, one workflow_id, the first READY; each starts when the one before has succeeded."""
    made = build(conn, "reproq_chain", some(3))
    assert [row.ordinal for row in made] == [1, 2, 3]
    ids = [row.result_id for row in made]
    found = [task(conn, result_id) for result_id in ids]
    assert [(t.status, t.parent_id, t.wait_count) for t in found] == [
        ("READY", None, 0), ("WAITING", ids[0], 1), ("WAITING", ids[1], 1),
    ]  # fmt: skip
    assert {t.workflow_id for t in found} == {made[0].workflow_id}
    assert rows(conn, "select 1 from workflow_runs") == []
    for result_id in ids:
        (got,) = claim(conn)
        assert got.result_id == result_id
        complete(conn, got)


def test_workflows_group_runs_side_by_side(conn: psycopg.Connection) -> None:
    """All READY under one workflow_id, no workflow row; equal tasks are no duplicates."""
    made = build(conn, "reproq_group", some(2) + some(2))
    assert [row.ordinal for row in made] == [1, 2, 3, 4]
    assert len({row.result_id for row in made}) == 4
    assert [t.result_id for t in claim(conn)] == [row.result_id for row in made]
    assert rows(conn, "select 1 from workflow_runs") == []


def test_workflows_chord_ends_in_its_callback(conn: psycopg.Connection) -> None:
    """Members in order, then the callback with ordinal 0; it waits for all of them."""
    made = build(conn, "reproq_chord", some(3))
    assert [row.ordinal for row in made] == [1, 2, 3, 0]
    callback = made[-1].result_id
    assert (task(conn, callback).status, task(conn, callback).wait_count) == ("WAITING", 3)
    found = workflow(conn, made[0].workflow_id)
    assert (found.expected_count, found.callback_result_id, found.status) == (3, callback, "RUNNING")
    first, *others = claim(conn)
    complete(conn, *others)
    assert claim(conn) == []
    complete(conn, first)
    (last,) = claim(conn)
    assert (last.result_id, last.task_path) == (callback, "app.tasks.collect")
    complete(conn, last)
    assert workflow(conn, made[0].workflow_id).status == "SUCCESSFUL"


def test_workflows_chord_of_none_runs_its_callback(conn: psycopg.Connection) -> None:
    """At once."""
    ((workflow_id, ordinal, callback),) = build(conn, "reproq_chord", [])
    assert ordinal == 0
    (got,) = claim(conn)
    assert got.result_id == callback
    complete(conn, got)
    assert workflow(conn, workflow_id).status == "SUCCESSFUL"


def test_workflows_chord_whose_member_fails_ends_its_callback(conn: psycopg.Connection) -> None:
    """workflow_failed."""
    made = build(conn, "reproq_chord", some(2))
    fail_for_good(conn, claim(conn)[0])
    assert kind(conn, made[-1].result_id) == "workflow_failed"


@pytest.mark.parametrize("function", ["reproq_chain", "reproq_group"])
def test_none_at_all(conn: psycopg.Connection, function: LiteralString) -> None:
    """An empty array makes nothing."""
    assert build(conn, function, []) == []
    assert rows(conn, "select 1 from task_runs") == []


@pytest.mark.parametrize("function", BUILDERS)
@pytest.mark.parametrize("bad", [{"task_path": "nodots"}, {}, None, 1, {"task_path": "a.b", "what": 1}])
def test_workflows_all_or_none(conn: psycopg.Connection, function: LiteralString, bad: Any) -> None:
    """One that cannot be a task, RQ002, and nothing is there."""
    error = refused(conn, function, tasks=Jsonb([*some(2), bad]), **more_for(function))
    assert error.sqlstate == "RQ002"
    assert "task 3" in str(error.diag.message_detail)
    assert rows(conn, "select 1 from task_runs union all select 1 from workflow_runs") == []


def more_for(function: str) -> dict[str, Any]:
    return {"callback": Jsonb(CALLBACK)} if function == "reproq_chord" else {}


@pytest.mark.parametrize("function", BUILDERS)
@pytest.mark.parametrize("tasks", [{}, "x", 1, None])
def test_workflows_what_is_no_array_is_refused(conn: psycopg.Connection, function: LiteralString, tasks: Any) -> None:
    """RQ001."""
    assert refused(conn, function, tasks=Jsonb(tasks), **more_for(function)).sqlstate == "RQ001"
    assert refused(conn, function, tasks=None, **more_for(function)).sqlstate == "RQ001"


@pytest.mark.parametrize("callback", [{}, None, [], {"task_path": "x"}])
def test_workflows_chord_needs_a_callback(conn: psycopg.Connection, callback: Any) -> None:
    """RQ002."""
    assert refused(conn, "reproq_chord", tasks=Jsonb(some(1)), callback=Jsonb(callback)).sqlstate == "RQ002"
    assert rows(conn, "select 1 from task_runs") == []


def test_workflows_what_a_task_may_say(conn: psycopg.Connection) -> None:
    """Queue, priority, keys, times: as in reproq_enqueue_many."""
    wanted = {"task_path": "a.b", "queue_name": "q", "priority": 3, "lock_key": "l", "max_attempts": 9}
    for function in BUILDERS:
        found = task(conn, build(conn, function, [wanted])[0].result_id)
        assert [getattr(found, name) for name in wanted] == list(wanted.values())


def test_workflows_large_chord_sees_a_failure_and_its_end_at_once(conn: psycopg.Connection, clock: Clock) -> None:
    """Its successes are counted once a second at most; that one has failed, or all have ended, is seen at once."""
    good, bad = (build(conn, "reproq_chord", [{**t, "queue_name": q} for t in some(150)]) for q in ("good", "bad"))
    complete(conn, *claim(conn, 99, queues=["good"]))
    clock.advance(seconds=2)
    complete(conn, *claim(conn, 50, queues=["good"]))
    assert workflow(conn, good[0].workflow_id).success_count == 149
    complete(conn, *claim(conn, 2, queues=["good"]))
    assert workflow(conn, good[0].workflow_id).status == "WAITING_CALLBACK"
    first, second = claim(conn, 2, queues=["bad"])
    complete(conn, first)
    fail_for_good(conn, second)
    assert workflow(conn, bad[0].workflow_id).status == "FAILED"
    assert kind(conn, bad[-1].result_id) == "workflow_failed"


@pytest.mark.timeout(300)
def test_ten_thousand_members(conn: psycopg.Connection) -> None:
    """Built, claimed and completed a hundred at a time, and the callback after the last: no blow-up."""
    began = time.perf_counter()
    made = build(conn, "reproq_chord", some(10_000))
    built = time.perf_counter() - began
    spent: list[float] = []
    while (got := claim(conn, 100))[0].result_id != made[-1].result_id:
        began = time.perf_counter()
        complete(conn, *got)
        spent.append(time.perf_counter() - began)
    complete(conn, *got)
    assert workflow(conn, made[0].workflow_id).status == "SUCCESSFUL"
    assert statuses(conn, [made[0].result_id, made[-1].result_id]) == ["SUCCESSFUL"] * 2
    early, late = sorted(spent[:20])[10], sorted(spent[-20:])[10]
    print(f"built in {built:.2f} s; completing a hundred: {early * 1000:.1f} ms early, {late * 1000:.1f} ms late")
    assert sum(spent) < 20


def test_workflows_only_ready_tasks_of_a_workflow_are_blocked_from_the_start(
    conn: psycopg.Connection, clock: Clock
) -> None:
    """Behind a backlog of one lock key: members of a group or chord, the first step of a chain; none that waits."""
    tasks = [{"task_path": "app.tasks.run", "lock_key": "l"} for _ in range(10)]
    members = build(conn, "reproq_group", tasks)
    assert [task(conn, row.result_id).blocked_on for row in members] == [""] * 8 + ["l:l"] * 2
    steps = build(conn, "reproq_chain", tasks[:3])
    assert [task(conn, row.result_id).blocked_on for row in steps] == ["l:l", "", ""]
    made = build(conn, "reproq_chord", tasks[:2], callback=tasks[0])
    assert [task(conn, row.result_id).blocked_on for row in made] == ["l:l", "l:l", ""]


def test_steps_and_members_have_hashes_of_their_own(conn: psycopg.Connection) -> None:
    """32 random hexadecimal characters, as Django writes them."""
    ids = [row.result_id for name in BUILDERS for row in build(conn, name, some(3) + some(3))]
    hashes = {task(conn, result_id).spec_hash for result_id in ids}
    assert len(hashes) == len(ids)
    assert {len(found) for found in hashes} == {32}
