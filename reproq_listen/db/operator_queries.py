"""What operators and producers ask of the database: one function or view of the SQL interface a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg.sql import SQL

from reproq_listen.db.database import Database
from reproq_listen.db.database import Record as Record

_CANCEL = SQL("select {schema}reproq_cancel(p_result_id => %s::bigint) as answer")
_RETRY = SQL("select {schema}reproq_retry(p_result_id => %s::bigint) as answer")
_RETRY_FAILED = SQL("""
    select r.result_id, r.answer
    from {schema}reproq_retry_failed(
        p_queue_name => %s::text, p_task_path => %s::text, p_limit => %s::integer, p_after_id => %s::bigint,
        p_kinds => %s::text[]) as r
""")
_REPLAY = SQL("select r.result_id, r.answer from {schema}reproq_replay(p_result_id => %s::bigint) as r")
_REPLAY_BY_HASH = SQL("""
    select r.source_id, r.result_id, r.answer from {schema}reproq_replay_by_hash(p_spec_hash => %s::text) as r
""")
_PAUSE = SQL("select {schema}reproq_pause(p_queue_name => %s::text, p_reason => %s::text)::text")
_RESUME = SQL("select {schema}reproq_resume(p_queue_name => %s::text)::text")
_LIMIT_SET = SQL("""
    select {schema}reproq_limit_set(p_key => %s::text, p_rate => %s::double precision, p_burst => %s::integer)::text
""")
_LIMIT_RM = SQL("select {schema}reproq_limit_rm(p_key => %s::text) as removed")
_PRUNE_EXPIRED = SQL("""
    select {schema}reproq_prune_expired(p_limit => %s::integer, p_dry_run => %s::boolean) as number
""")
_PRUNE_FINISHED = SQL("""
    select {schema}reproq_prune_finished(
        p_older_than => %s::interval, p_limit => %s::integer, p_dry_run => %s::boolean) as number
""")
_PRUNE_AUDIT = SQL("""
    select {schema}reproq_prune_audit(
        p_older_than => %s::interval, p_limit => %s::integer, p_dry_run => %s::boolean) as number
""")
_EXPLAIN = SQL("""
    select e.blocks, e.reason, e.detail, e.until, e.remedy from {schema}reproq_explain(p_result_id => %s::bigint) as e
""")
_AUDIT = SQL("""
    select a.audit_id, a.at, a.who, a.origin, a.what, a.details, a.why
    from {schema}reproq_audit(p_limit => %s::integer) as a
""")
_FAILED = SQL("""
    select t.result_id, t.queue_name, t.task_path, t.attempts, t.failed_at, t.kind, t.exception_class, t.message
    from {schema}reproq_tasks as t
    where t.status = 'FAILED' and (%(queue)s::text is null or t.queue_name = %(queue)s)
    order by t.failed_at desc
    limit %(limit)s
""")
_FAILURES = SQL("""
    select f.queue_name, f.task_path, f.kind, f.message, f.tasks, f.first_failed_at, f.last_failed_at, f.last_result_id
    from {schema}reproq_failures as f
    where %(queue)s::text is null or f.queue_name = %(queue)s
    order by f.tasks desc, f.last_failed_at desc
    limit %(limit)s
""")
_INSPECT = SQL("select t.* from {schema}reproq_tasks as t where t.result_id = %s::bigint")
_PAYLOAD = SQL("""
    select t.spec_json, t.return_json, t.metadata_json from {schema}task_runs as t where t.result_id = %s::bigint
""")
_QUEUES = SQL("select q.* from {schema}reproq_queues as q order by q.queue_name")
_BLOCKED = SQL("select p.* from {schema}reproq_blocked as p order by p.tasks desc, p.key limit %s::integer")
_LIMITS = SQL("select l.* from {schema}reproq_limits as l order by l.key")
_WORKERS = SQL("""
    select w.*, true as alive from {schema}reproq_live_workers as w
    union all
    select w.*, false as alive from {schema}reproq_dead_workers as w
    order by alive desc, worker_id
""")
_ENQUEUE_MANY = SQL("""
    select e.ordinal, e.result_id, e.created
    from {schema}reproq_enqueue_many(p_tasks => %s::jsonb) as e order by e.ordinal
""")
_CHAIN = SQL("select w.workflow_id, w.ordinal, w.result_id from {schema}reproq_chain(p_tasks => %s::jsonb) as w")
_GROUP = SQL("select w.workflow_id, w.ordinal, w.result_id from {schema}reproq_group(p_tasks => %s::jsonb) as w")
_CHORD = SQL("""
    select w.workflow_id, w.ordinal, w.result_id
    from {schema}reproq_chord(p_tasks => %s::jsonb, p_callback => %s::jsonb) as w
""")
_SCHEDULES = SQL("select s.* from {schema}reproq_schedules as s order by s.name")
_SCHEDULE_RM = SQL("select {schema}reproq_schedule_rm(p_name => %s::text) as removed")
_SCHEDULE_SET = SQL("""
    select {schema}reproq_schedule_set(
        p_name => %(name)s::text, p_cron_expr => %(cron_expr)s::text, p_task_path => %(task_path)s::text,
        p_args => %(args)s::jsonb, p_kwargs => %(kwargs)s::jsonb, p_queue_name => %(queue_name)s::text,
        p_priority => %(priority)s::integer, p_max_attempts => %(max_attempts)s::integer,
        p_concurrency_key => %(concurrency_key)s::text, p_concurrency_limit => %(concurrency_limit)s::integer,
        p_time_zone => %(time_zone)s::text, p_misfire => %(misfire)s::text, p_overlap => %(overlap)s::text,
        p_enabled => %(enabled)s::boolean, p_options => %(options)s::jsonb) as answer
""")

_STATUSES = SQL("""
    select t.status, count(*) as tasks
    from {schema}task_runs as t
    where t.result_id = any (%s::bigint[])
    group by t.status
    order by t.status
""")
_STATES = SQL("""
    select t.result_id, t.status, t.attempts, t.return_json::text as result, t.last_error, t.started_at, t.finished_at
    from {schema}task_runs as t
    where t.result_id = any (%s::bigint[])
    order by t.result_id
""")


class TaskState(NamedTuple):
    """The state of a task."""

    result_id: int
    status: str
    attempts: int
    result: str | None  # JSON text
    last_error: str | None
    started_at: datetime | None
    finished_at: datetime | None


class Operator:
    """The calls of an operator. Every method raises CallError. `reason` goes into the audit log with each change."""

    def __init__(self, database: Database, reason: str | None = None) -> None:
        self._database = database
        self._reason = reason

    async def cancel(self, result_id: int) -> str:
        """cancelled | requested | terminal | missing"""
        return str(await self._value(_CANCEL, result_id))

    async def retry(self, result_id: int) -> str:
        """retried | already_active | not_failed | missing"""
        return str(await self._value(_RETRY, result_id))

    async def retry_failed(
        self, queue: str | None, path: str | None, kinds: list[str] | None, limit: int, after_id: int
    ) -> list[Record]:
        """Retry the next failed tasks after an id: result_id and answer of each, in order of their ids.

        `kinds` None: all but cancelled and expired.
        """
        return await self._records(_RETRY_FAILED, queue, path, limit, after_id, kinds)

    async def replay(self, result_id: int) -> Record:
        """source_id, result_id of the new or active task, and replayed | already_active | missing."""
        (found,) = await self._records(_REPLAY, result_id)
        return {"source_id": result_id, **found}

    async def replay_by_hash(self, spec_hash: str) -> Record:
        """As `replay`, of the newest task with this hash."""
        found = await self._records(_REPLAY_BY_HASH, spec_hash)
        return found[0] if found else {"source_id": None, "result_id": None, "answer": "missing"}

    async def pause(self, queue: str, reason: str | None) -> None:
        await self._records(_PAUSE, queue, reason)

    async def resume(self, queue: str) -> None:
        await self._records(_RESUME, queue)

    async def limit_set(self, key: str, rate: float, burst: int) -> None:
        await self._records(_LIMIT_SET, key, rate, burst)

    async def limit_rm(self, key: str) -> bool:
        """False when there was none."""
        return bool(await self._value(_LIMIT_RM, key))

    async def prune_expired(self, limit: int, *, dry_run: bool) -> int:
        """How many final tasks past their expires_at were deleted, or would be."""
        return int(await self._value(_PRUNE_EXPIRED, limit, dry_run))

    async def prune_finished(self, older_than: timedelta, limit: int, *, dry_run: bool) -> int:
        """How many tasks that ended longer ago than `older_than` were deleted, or would be."""
        return int(await self._value(_PRUNE_FINISHED, older_than, limit, dry_run))

    async def prune_audit(self, older_than: timedelta, limit: int, *, dry_run: bool) -> int:
        """How many rows of the audit log older than `older_than` were deleted, or would be."""
        return int(await self._value(_PRUNE_AUDIT, older_than, limit, dry_run))

    async def explain(self, result_id: int) -> list[Record]:
        return await self._records(_EXPLAIN, result_id)

    async def audit(self, limit: int) -> list[Record]:
        return await self._records(_AUDIT, limit)

    async def failed(self, queue: str | None, limit: int) -> list[Record]:
        """Failed tasks, latest first."""
        return await self._database.records(_FAILED, {"queue": queue, "limit": limit})

    async def failures(self, queue: str | None, limit: int) -> list[Record]:
        """Failed tasks by queue, path, kind and message, the most frequent first."""
        return await self._database.records(_FAILURES, {"queue": queue, "limit": limit})

    async def inspect(self, result_id: int) -> Record | None:
        """A task without its payload; None when there is no such task."""
        found = await self._records(_INSPECT, result_id)
        return found[0] if found else None

    async def payload(self, result_id: int) -> Record:
        """Arguments, result and metadata of a task. Needs SELECT on task_runs."""
        found = await self._records(_PAYLOAD, result_id)
        return found[0] if found else {}

    async def queues(self) -> list[Record]:
        return await self._records(_QUEUES)

    async def blocked(self, limit: int) -> list[Record]:
        """Busy keys and how many tasks are blocked behind each."""
        return await self._records(_BLOCKED, limit)

    async def limits(self) -> list[Record]:
        return await self._records(_LIMITS)

    async def workers(self) -> list[Record]:
        """Live workers, then those not seen for five minutes."""
        return await self._records(_WORKERS)

    async def enqueue(self, task: str) -> Record:
        """Enqueue one task (a JSON object): ordinal, result_id, created."""
        (found,) = await self.enqueue_many(f"[{task}]")
        return found

    async def enqueue_many(self, tasks: str) -> list[Record]:
        """Enqueue a JSON array of tasks, all or none."""
        return await self._records(_ENQUEUE_MANY, tasks)

    async def statuses(self, result_ids: Sequence[int]) -> dict[str, int]:
        """The number of these tasks in each status."""
        return {row["status"]: row["tasks"] for row in await self._records(_STATUSES, list(result_ids))}

    async def states(self, result_ids: Sequence[int]) -> list[TaskState]:
        """The state of each of these tasks, by id; a missing one is left out. Needs SELECT on task_runs."""
        return [TaskState(**row) for row in await self._records(_STATES, list(result_ids))]

    async def chain(self, tasks: str) -> list[Record]:
        return await self._records(_CHAIN, tasks)

    async def group(self, tasks: str) -> list[Record]:
        return await self._records(_GROUP, tasks)

    async def chord(self, tasks: str, callback: str) -> list[Record]:
        """The members, then the callback with ordinal 0."""
        return await self._records(_CHORD, tasks, callback)

    async def schedules(self) -> list[Record]:
        return await self._records(_SCHEDULES)

    async def schedule_set(self, arguments: Mapping[str, object]) -> str:
        """created | changed | unchanged"""
        (answer,) = await self._database.records(_SCHEDULE_SET, arguments, reason=self._reason)
        return str(answer["answer"])

    async def schedule_rm(self, name: str) -> bool:
        """False when there was none."""
        return bool(await self._value(_SCHEDULE_RM, name))

    async def _records(self, query: SQL, *args: object) -> list[Record]:
        return await self._database.records(query, args, reason=self._reason)

    async def _value(self, query: SQL, *args: object) -> Any:  # noqa: ANN401 - what the column holds
        (row,) = await self._records(query, *args)
        (value,) = row.values()
        return value
