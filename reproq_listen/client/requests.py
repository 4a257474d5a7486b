"""What both clients say to the database and read from its answers; how it gets there is a matter of `connections`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from reproq_listen.client.connections import Row
from reproq_listen.client.task import Task, TaskCall
from reproq_listen.client.workflows import Chain, Chord, Group
from reproq_listen.db import producer_queries as queries
from reproq_listen.errors import InvalidTaskError

Request = tuple[str, tuple[object, ...]]
"""The text of a statement, and its arguments."""

_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


def as_call(task: Task[..., Any] | TaskCall[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskCall[Any]:
    """Give the call that the arguments of `enqueue` describe. Raises InvalidTaskError, InvalidArgumentsError."""
    if isinstance(task, Task):
        return TaskCall(task, args, kwargs)
    if not isinstance(task, TaskCall):
        raise InvalidTaskError(f"enqueue needs a task (a function with @task) or task.call(...), not {task!r:.80}")
    if args or kwargs:
        raise InvalidTaskError("enqueue(task.call(...)) takes no more arguments: the call has them")
    return task


def enqueue(call: TaskCall[Any], schema: str | None, style: queries.Style) -> Request:
    """Enqueue one task."""
    parameters: dict[str, object] = {"task_path": call.task.module_path}
    if call.encoded_args:
        parameters["args"] = _encode(call.encoded_args)
    if call.encoded_kwargs:
        parameters["kwargs"] = _encode(call.encoded_kwargs)
    parameters.update(call.options)
    return queries.enqueue(schema, style, parameters)


def enqueue_many(calls: Sequence[TaskCall[Any]], schema: str | None, style: queries.Style) -> Request:
    """Enqueue several tasks."""
    return queries.enqueue_many(schema, style), (_array(calls),)


def workflow(work: Chain | Group | Chord[Any], schema: str | None, style: queries.Style) -> Request:
    """Enqueue the tasks of a workflow."""
    match work:
        case Chain():
            return queries.workflow(schema, style, "chain"), (_array(work.calls),)
        case Group():
            return queries.workflow(schema, style, "group"), (_array(work.calls),)
        case Chord():
            return queries.workflow(schema, style, "chord"), (_array(work.calls), _element(work.callback))


def in_order(work: Chain | Group | Chord[Any], rows: Sequence[Row]) -> tuple[UUID, list[tuple[int, TaskCall[Any]]]]:
    """Give the id of a workflow, and its tasks: members in order, then the callback of a chord, which has place 0."""
    calls = [*work.calls, work.callback] if isinstance(work, Chord) else [*work.calls]
    ids = [row[2] for row in sorted(rows, key=lambda row: row[1] or len(calls))]
    return UUID(rows[0][0]), list(zip(ids, calls, strict=True))


def _array(calls: Iterable[TaskCall[Any]]) -> str:
    return "[" + ",".join(map(_element, calls)) + "]"


def _element(call: TaskCall[Any]) -> str:
    """Give a call as an element of `reproq_enqueue_many`."""
    if not isinstance(call, TaskCall):
        raise InvalidTaskError(f"task.call(...) is needed here, not {call!r:.80}")
    return _encode(call.element())
