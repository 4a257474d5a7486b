"""A session of the tests: a connection with calls of the SQL interface, and rows as other programs write them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, LiteralString, NamedTuple, Self
from uuid import UUID

import psycopg
from psycopg import sql

TASK_PATH = "app.tasks.work"


class Attempt(NamedTuple):
    """What a claim gives: the task and the fence."""

    result_id: int
    token: UUID


class Session:
    """One connection, READ COMMITTED, not autocommit: a call stays uncommitted until `commit` or `rollback`."""

    def __init__(self, dsn: str, name: str) -> None:
        self.name = name
        self.connection = psycopg.connect(dsn, application_name=name)
        self.pid = self.connection.info.backend_pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def commit(self) -> None:
        self.connection.commit()

    def rollback(self) -> None:
        self.connection.rollback()

    def rows(self, query: LiteralString | sql.Composed, *params: Any) -> list[Any]:
        """Run one statement and return its rows; none for a statement without a result."""
        cursor = self.connection.execute(query, params)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: LiteralString, *params: Any) -> Any:
        """Run a statement that returns one value."""
        return self.rows(query, *params)[0][0]

    # Producing

    def add(self, **columns: Any) -> int:
        """Insert one task as Django does: a row of its own spec; without backoff, so that tests never wait."""
        spec = {"v": 1, "task_path": columns.pop("task_path", TASK_PATH), "exec": {"backoff_seconds": 0}}
        values = {"spec_json": json.dumps(spec), "spec_hash": uuid.uuid4().hex, **columns}
        statement = sql.SQL("insert into task_runs ({}) values ({}) returning result_id").format(
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        )
        return int(self.connection.execute(statement, list(values.values())).fetchall()[0][0])

    def add_chain(self, length: int, **columns: Any) -> list[int]:
        """Insert a chain: the first step READY, each other WAITING for the one before."""
        ids = [self.add(**columns, workflow_id=(workflow := uuid.uuid4()))]
        for _ in range(length - 1):
            waiting = {"status": "WAITING", "parent_id": ids[-1], "wait_count": 1, "workflow_id": workflow}
            ids.append(self.add(**columns, **waiting))
        return ids

    def add_chord(self, members: int, **columns: Any) -> tuple[UUID, list[int], int]:
        """Insert a chord of READY members and a WAITING callback; returns workflow, members, callback."""
        workflow = uuid.uuid4()
        ids = [self.add(**columns, workflow_id=workflow) for _ in range(members)]
        callback = self.add(status="WAITING", wait_count=members, workflow_id=workflow)
        self.rows(
            "insert into workflow_runs (workflow_id, expected_count, callback_result_id) values (%s, %s, %s)",
            workflow,
            members,
            callback,
        )
        return workflow, ids, callback

    def enqueue(self, number: int) -> int:
        """Enqueue the task with this argument, or find its active duplicate."""
        return self.enqueue_many([number])[0][0]

    def enqueue_many(self, numbers: Sequence[int]) -> list[tuple[int, bool]]:
        """Enqueue a batch of such tasks in this order; each with whether it is new."""
        tasks = [{"task_path": TASK_PATH, "args": [number], "backoff_seconds": 0, "dedupe": True} for number in numbers]
        return [
            (row[0], row[1])
            for row in self.rows("select result_id, created from reproq_enqueue_many(%s)", json.dumps(tasks))
        ]

    def enqueue_unique(self, key: str, number: int = 0, **more: str) -> int:
        """Enqueue the task with this argument under a unique key, or find the one that has it."""
        return self.enqueue_many_unique([key], number, **more)[0]

    def enqueue_many_unique(self, keys: Sequence[str], number: int = 0, **more: str) -> list[int]:
        """One task for each of these unique keys."""
        tasks = [
            {"task_path": TASK_PATH, "args": [number], "backoff_seconds": 0, "unique_key": key, **more} for key in keys
        ]
        return [row[0] for row in self.rows("select result_id from reproq_enqueue_many(%s)", json.dumps(tasks))]

    # Working

    def claim(
        self,
        limit: int = 1,
        queues: Sequence[str] = ("default",),
        *,
        lease: str = "60 s",
        aging: float = 0,
        worker: str | None = None,
        incarnation: UUID | None = None,
    ) -> list[Attempt]:
        """Claim up to `limit` tasks, under the session's name unless told otherwise."""
        found = self.rows(
            "select result_id, lease_token from reproq_claim(p_worker_id => %s, p_queues => %s::text[],"
            " p_limit => %s, p_lease => %s::interval, p_aging_factor => %s, p_incarnation => %s::uuid)",
            worker or self.name,
            list(queues),
            limit,
            lease,
            aging,
            incarnation,
        )
        return [Attempt(*row) for row in found]

    def heartbeat(
        self,
        attempts: Sequence[Attempt],
        *,
        lease: str = "60 s",
        worker: str | None = None,
        incarnation: UUID | None = None,
    ) -> list[str]:
        """Renew the leases of these attempts; the answers in their order, then those about tasks not named."""
        found = self.rows(
            "select answer from reproq_heartbeat(p_worker_id => %s, p_result_ids => %s::bigint[],"
            " p_lease_tokens => %s::uuid[], p_lease => %s::interval, p_incarnation => %s::uuid)",
            worker or self.name,
            *_fences(attempts),
            lease,
            incarnation,
        )
        return [row[0] for row in found]

    def complete(self, *attempts: Attempt) -> list[str]:
        """End these attempts well."""
        ids, tokens = _fences(attempts)
        found = self.rows(
            "select answer from reproq_complete(p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],"
            " p_returns => %s::jsonb[])",
            ids,
            tokens,
            ["true"] * len(ids),
        )
        return [row[0] for row in found]

    def complete_and_claim(
        self, *attempts: Attempt, limit: int = 1, queues: Sequence[str] = ("default",)
    ) -> tuple[list[str], list[Attempt]]:
        """End these attempts well and claim up to `limit` tasks; the answers, and what was claimed."""
        ids, tokens = _fences(attempts)
        found = self.rows(
            "select answer, result_id, lease_token from reproq_complete_and_claim(p_result_ids => %s::bigint[],"
            " p_lease_tokens => %s::uuid[], p_returns => %s::jsonb[], p_logs_uris => null, p_accounts => null,"
            " p_worker_id => %s, p_queues => %s::text[], p_limit => %s, p_lease => '60 s', p_aging_factor => 0)",
            *(ids, tokens, ["true"] * len(ids), self.name, list(queues), limit),
        )
        answers = [answer for answer, *_ in found if answer is not None]
        return answers, [Attempt(*row) for answer, *row in found if answer is None]

    def fail(self, *attempts: Attempt, retryable: bool = False) -> list[str]:
        """End these attempts badly; for good unless `retryable`."""
        ids, tokens = _fences(attempts)
        found = self.rows(
            "select answer from reproq_fail(p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],"
            " p_errors => %s::jsonb[], p_retryable => %s::boolean[])",
            ids,
            tokens,
            ['{"kind": "app_error", "message": "failed in a test"}'] * len(ids),
            [retryable] * len(ids),
        )
        return [row[0] for row in found]

    def release(self, *attempts: Attempt) -> list[str]:
        """Give these attempts back unharmed."""
        found = self.rows(
            "select answer from reproq_release(p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[])",
            *_fences(attempts),
        )
        return [row[0] for row in found]

    def reclaim(self) -> dict[int, str]:
        """Run the caretaker; the tasks it moved with its answers."""
        return {row[0]: row[1] for row in self.rows("select result_id, answer from reproq_reclaim()")}

    def next_wake(self, *queues: str) -> float | None:
        """Seconds until a worker of these queues should claim again; None = nothing known ahead."""
        wake: float | None = self.value(
            "select extract(epoch from reproq_next_wake(%s::text[]))::float8", list(queues or ("default",))
        )
        return wake

    # Operating

    def cancel(self, result_id: int) -> str:
        return str(self.value("select reproq_cancel(%s)", result_id))

    def retry(self, result_id: int) -> str:
        return str(self.value("select reproq_retry(%s)", result_id))

    def pause(self, queue: str = "default") -> None:
        self.rows("select reproq_pause(%s)", queue)

    def resume(self, queue: str = "default") -> None:
        self.rows("select reproq_resume(%s)", queue)

    def limit_set(self, key: str, rate: float, burst: int) -> None:
        self.rows("select reproq_limit_set(%s, %s, %s)", key, rate, burst)

    def prune(self, result_id: int) -> bool:
        """Delete a task that does not run and that nothing depends on, as a pruner does: lock it first, skip locked."""
        return bool(
            self.rows(
                "with locked as materialized ("
                " select t.result_id from task_runs t where t.result_id = %s and t.status <> 'RUNNING'"
                " and t.workflow_id is null"
                " and not exists (select from task_runs c where c.parent_id = t.result_id)"
                " for update skip locked)"
                " delete from task_runs t using locked l where t.result_id = l.result_id returning t.result_id",
                result_id,
            )
        )

    # Looking

    def status(self, result_id: int) -> str:
        return str(self.value("select status from task_runs where result_id = %s", result_id))

    def kind(self, result_id: int) -> str | None:
        """The kind of a task's last error."""
        kind: str | None = self.value(
            "select errors_json #>> '{-1,kind}' from task_runs where result_id = %s", result_id
        )
        return kind

    def blocked(self, result_id: int) -> str:
        return str(self.value("select blocked_on from task_runs where result_id = %s", result_id))


def _fences(attempts: Sequence[Attempt]) -> tuple[list[int], list[UUID]]:
    return [attempt.result_id for attempt in attempts], [attempt.token for attempt in attempts]
