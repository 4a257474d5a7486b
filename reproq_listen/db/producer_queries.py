"""Statements of the Python client: text and arguments, to be run by whatever connection a producer has.

Every placeholder has a cast, so that each driver sends the type that the function wants. Two spellings of placeholders:
`format` (%s: psycopg, Django) and `numeric` ($1: asyncpg).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

Style = Literal["format", "numeric"]

_TYPES = {
    "task_path": "text",
    "args": "jsonb",
    "kwargs": "jsonb",
    "queue_name": "text",
    "priority": "integer",
    "run_after": "timestamptz",
    "lock_key": "text",
    "concurrency_key": "text",
    "concurrency_limit": "integer",
    "max_attempts": "integer",
    "timeout_seconds": "integer",
    "expires_at": "timestamptz",
    "takes_context": "boolean",
    "dedupe": "boolean",
    "backoff_seconds": "double precision",
    "delay": "interval",
    "unique_key": "text",
    "unique_for": "interval",
    "unique_while": "text",
    "on_duplicate": "text",
}
"""Parameters of reproq_enqueue, without `p_`."""


def enqueue(schema: str | None, style: Style, parameters: Mapping[str, object]) -> tuple[str, tuple[object, ...]]:
    """Enqueue one task. Gives one row: its id."""
    return _enqueue_text(schema, style, tuple(parameters)), tuple(parameters.values())


@lru_cache(maxsize=512)
def _enqueue_text(schema: str | None, style: Style, names: tuple[str, ...]) -> str:
    return _call(schema, style, "select", "reproq_enqueue", [(f"p_{name}", _TYPES[name]) for name in names])


@lru_cache(maxsize=64)
def enqueue_many(schema: str | None, style: Style) -> str:
    """Enqueue an array of tasks. Gives their ids, in order."""
    call = _call(schema, style, "select e.result_id from", "reproq_enqueue_many", [("p_tasks", "jsonb")])
    return f"{call} as e order by e.ordinal"


@lru_cache(maxsize=64)
def workflow(schema: str | None, style: Style, kind: Literal["chain", "group", "chord"]) -> str:
    """Enqueue the tasks of a workflow. Gives its id as text, the place of each task (callback: 0) and its id."""
    parameters = [("p_tasks", "jsonb")] + ([("p_callback", "jsonb")] if kind == "chord" else [])
    call = _call(schema, style, "select w.workflow_id::text, w.ordinal, w.result_id from", f"reproq_{kind}", parameters)
    return f"{call} as w order by w.ordinal"


@lru_cache(maxsize=64)
def result(schema: str | None, style: Style) -> str:
    """What became of a task, JSON as text. The last column: whether its end will be notified."""
    parameters = [("p_result_id", "bigint"), ("p_watch", "boolean")]
    columns = (
        "r.task_path, r.status, r.args::text, r.kwargs::text, r.return_json::text, r.errors_json::text, r.attempts, "
        "r.enqueued_at, r.started_at, r.last_attempted_at, r.finished_at, r.watched"
    )
    return f"{_call(schema, style, f'select {columns} from', 'reproq_result', parameters)} as r"


@lru_cache(maxsize=64)
def result_for_django(schema: str | None) -> str:
    """What became of a task, with what Django's result shows of its row. JSON as text."""
    columns = (
        "r.task_path, r.status, r.args::text, r.kwargs::text, r.return_json::text, r.errors_json::text, "
        "r.worker_ids::text, r.queue_name, r.priority, r.run_after, r.enqueued_at, r.started_at, r.last_attempted_at, "
        "r.finished_at"
    )
    return f"{_call(schema, 'format', f'select {columns} from', 'reproq_result', [('p_result_id', 'bigint')])} as r"


@lru_cache(maxsize=64)
def change(schema: str | None, style: Style, verb: Literal["cancel", "retry"]) -> str:
    """Cancel or retry a task. Gives the answer."""
    return _call(schema, style, "select", f"reproq_{verb}", [("p_result_id", "bigint")])


@lru_cache(maxsize=64)
def channel(schema: str | None, style: Style) -> str:
    """The channel on which ends are notified, and the process that answers: a pooler hands out ids of its own."""
    return f"{_call(schema, style, 'select c.ended, pg_backend_pid() from', 'reproq_channels', [])} as c"


def listen(channel: str) -> str:
    """Listen on a channel."""
    return 'listen "' + channel.replace('"', '""') + '"'


UNLISTEN = "unlisten *"


def _call(schema: str | None, style: Style, verb: str, function: str, parameters: Iterable[tuple[str, str]]) -> str:
    prefix = ""
    if schema is not None:
        prefix = '"' + schema.replace('"', '""') + '".'
        if style == "format":
            prefix = prefix.replace("%", "%%")
    arguments = ", ".join(
        f"{name} => {'%s' if style == 'format' else f'${place}'}::{kind}"
        for place, (name, kind) in enumerate(parameters, start=1)
    )
    return f"{verb} {prefix}{function}({arguments})"
