"""Rows to test with, and the calls of the functions under test, in few words.

`Row` is a named tuple of the columns that a statement returned.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

Row = Any
Params = Sequence[Any] | Mapping[str, Any]

PATH = "app.tasks.run"
MINUTE = timedelta(minutes=1)
FINAL = ("SUCCESSFUL", "FAILED", "CANCELLED")


def rows(conn: psycopg.Connection, query: LiteralString | sql.Composed, params: Params | None = None) -> list[Row]:
    """All rows of a statement."""
    return conn.cursor(row_factory=namedtuple_row).execute(query, params).fetchall()


def value(conn: psycopg.Connection, query: LiteralString | sql.Composed, params: Params | None = None) -> Any:
    """The one column of the one row of a statement."""
    ((found,),) = rows(conn, query, params)
    return found


def call(conn: psycopg.Connection, function: LiteralString, **arguments: Any) -> list[Row]:
    """Rows of `function`, its arguments named without their `p_`; casts as in `result_ids="{1,2}"` are PostgreSQL's."""
    named = [sql.SQL("{} => {}").format(sql.Identifier(f"p_{name}"), sql.Placeholder()) for name in arguments]
    query = sql.SQL("select * from {}({})").format(sql.Identifier(function), sql.SQL(", ").join(named))
    return rows(conn, query, list(arguments.values()))


def add(conn: psycopg.Connection, **columns: Any) -> int:
    """Insert a task as a producer of today might, with these columns; returns its result_id."""
    path = columns.get("task_path") or PATH
    spec = columns.pop("spec_json", {"v": 1, "task_path": path, "args": [], "kwargs": {}})
    given: dict[str, Any] = {"spec_json": spec, "spec_hash": uuid.uuid4().hex, **columns}
    query = sql.SQL("insert into task_runs ({}) values ({}) returning result_id").format(
        sql.SQL(", ").join(map(sql.Identifier, given)), sql.SQL(", ").join(sql.Placeholder() * len(given))
    )
    jsonb = ("spec_json", "worker_ids", "errors_json", "metadata_json", "return_json")
    params = [Jsonb(cell) if name in jsonb and not isinstance(cell, Jsonb) else cell for name, cell in given.items()]
    return int(value(conn, query, params))


def add_many(conn: psycopg.Connection, number: int, **columns: Any) -> list[int]:
    """Insert `number` equal tasks one after the other."""
    return [add(conn, **columns) for _ in range(number)]


def update(conn: psycopg.Connection, result_id: int, **columns: Any) -> None:
    """Write columns of a task past the functions, as a DBA or Django does."""
    written = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder()) for name in columns]
    query = sql.SQL("update task_runs set {} where result_id = {}").format(
        sql.SQL(", ").join(written), sql.Placeholder()
    )
    conn.execute(query, [*columns.values(), result_id])


def task(conn: psycopg.Connection, result_id: int) -> Row:
    """The row of a task."""
    (found,) = rows(conn, "select * from task_runs where result_id = %s", [result_id])
    return found


def statuses(conn: psycopg.Connection, result_ids: Sequence[int]) -> list[str]:
    """The statuses of tasks, in the order asked for."""
    return [task(conn, result_id).status for result_id in result_ids]


def last_error(conn: psycopg.Connection, result_id: int) -> dict[str, Any]:
    """The newest entry of a task's errors_json."""
    entry: dict[str, Any] = task(conn, result_id).errors_json[-1]
    return entry


def kind(conn: psycopg.Connection, result_id: int) -> str | None:
    """Kind of the newest error of a FAILED task; None when the task is in another state."""
    found = task(conn, result_id)
    return found.errors_json[-1]["kind"] if found.status == "FAILED" else None


def claim(
    conn: psycopg.Connection,
    limit: int = 10,
    *,
    queues: Sequence[str | None] | None = ("default",),
    worker: str | None = "w1",
    lease: timedelta | str | None = MINUTE,
    **more: Any,
) -> list[Row]:
    """Claim; `more`: aging_factor, hint, incarnation."""
    names = None if queues is None else list(queues)
    return call(conn, "reproq_claim", worker_id=worker, queues=names, limit=limit, lease=lease, **more)


def claimed_ids(conn: psycopg.Connection, limit: int = 10, **more: Any) -> list[int]:
    """Claim, and the ids only, in their order."""
    return [found.result_id for found in claim(conn, limit, **more)]


def claimed(conn: psycopg.Connection, **columns: Any) -> Row:
    """A task of these columns that has just been claimed (by w1, for a minute), alone in its queue."""
    queue = columns.pop("queue_name", f"only-{uuid.uuid4().hex}")
    result_id = add(conn, queue_name=queue, **columns)
    (found,) = claim(conn, 1, queues=[queue])
    assert found.result_id == result_id
    return found


def attempts_of(tasks: Sequence[Row]) -> dict[str, Any]:
    """The fences of claimed tasks as arguments of a work function."""
    return {"result_ids": [t.result_id for t in tasks], "lease_tokens": [t.lease_token for t in tasks]}


def complete(conn: psycopg.Connection, *tasks: Row, returns: Sequence[Any] | None = None, **more: Any) -> list[str]:
    """Complete claimed tasks (returning null unless told); the answers."""
    values = [Jsonb(cell) for cell in (returns or [None] * len(tasks))]
    return [row.answer for row in call(conn, "reproq_complete", **attempts_of(tasks), returns=values, **more)]


def fail(
    conn: psycopg.Connection,
    *tasks: Row,
    error: Any = None,
    retryable: bool | None = None,
    **more: Any,
) -> list[Row]:
    """Fail claimed tasks, all with one error (an app_error unless told); rows of result_id, answer, run_after."""
    errors = [Jsonb({"kind": "app_error", "message": "boom"} if error is None else error)] * len(tasks)
    return call(conn, "reproq_fail", **attempts_of(tasks), errors=errors, retryable=[retryable] * len(tasks), **more)


def fail_for_good(conn: psycopg.Connection, *tasks: Row) -> None:
    """Fail claimed tasks so that they are FAILED now, whatever attempts they have left."""
    assert {row.answer for row in fail(conn, *tasks, retryable=False)} == {"failed"}


def release(conn: psycopg.Connection, *tasks: Row) -> list[str]:
    """Release claimed tasks; the answers."""
    return [row.answer for row in call(conn, "reproq_release", **attempts_of(tasks))]


def heartbeat(
    conn: psycopg.Connection, *tasks: Row, worker: str = "w1", lease: timedelta | str = MINUTE, **more: Any
) -> dict[int, str]:
    """Renew the leases of claimed tasks; answers by result_id."""
    answers = call(conn, "reproq_heartbeat", worker_id=worker, lease=lease, **attempts_of(tasks), **more)
    return {row.result_id: row.answer for row in answers}


def reclaim(conn: psycopg.Connection, limit: int = 100) -> dict[int, str]:
    """Reclaim; answers by result_id, the last one of each."""
    return {row.result_id: row.answer for row in call(conn, "reproq_reclaim", limit=limit)}


def next_wake(conn: psycopg.Connection, *queues: str) -> timedelta | None:
    """Time until a worker of these queues (default) should claim again."""
    found: timedelta | None = value(conn, "select reproq_next_wake(%s)", [list(queues or ["default"])])
    return found


def limit_set(conn: psycopg.Connection, key: str, rate: float, burst: int) -> None:
    """Set a token bucket."""
    conn.execute("select reproq_limit_set(%s, %s, %s)", [key, rate, burst])


def cancel(conn: psycopg.Connection, result_id: int | None) -> str:
    """Cancel a task; the answer."""
    answer: str = value(conn, "select reproq_cancel(%s)", [result_id])
    return answer


def retry(conn: psycopg.Connection, result_id: int | None) -> str:
    """Retry a task; the answer."""
    answer: str = value(conn, "select reproq_retry(%s)", [result_id])
    return answer


def refused(conn: psycopg.Connection, function: LiteralString, **arguments: Any) -> psycopg.Error:
    """The error with which PostgreSQL refuses a call; the transaction of `conn` goes on. Fails when there is none."""
    try:
        with conn.transaction():
            found = call(conn, function, **arguments)
    except psycopg.Error as error:
        return error
    raise AssertionError(f"{function} accepted {str(arguments)[:300]} and answered {str(found)[:300]}")


def chain(conn: psycopg.Connection, length: int = 3, **columns: Any) -> list[int]:
    """A chain as Django writes it: one workflow_id, each later step WAITING for the one before, no workflow row."""
    workflow_id = uuid.uuid4()
    steps: list[int] = []
    for place in range(length):
        waiting = {"status": "WAITING", "parent_id": steps[-1], "wait_count": 1} if place else {}
        steps.append(add(conn, workflow_id=workflow_id, **waiting, **columns))
    return steps


def chord(conn: psycopg.Connection, members: int = 3, **columns: Any) -> tuple[uuid.UUID, list[int], int]:
    """A chord as Django writes it: workflow_id, its members, its callback."""
    workflow_id = uuid.uuid4()
    ids = add_many(conn, members, workflow_id=workflow_id, **columns)
    callback = add(conn, workflow_id=workflow_id, status="WAITING", wait_count=members, **columns)
    conn.execute(
        "insert into workflow_runs (workflow_id, expected_count, callback_result_id) values (%s, %s, %s)",
        [workflow_id, members, callback],
    )
    return workflow_id, ids, callback


def workflow(conn: psycopg.Connection, workflow_id: uuid.UUID) -> Row:
    """The row of a chord."""
    (found,) = rows(conn, "select * from workflow_runs where workflow_id = %s", [workflow_id])
    return found
