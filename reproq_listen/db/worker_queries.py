"""The calls of the SQL interface: SQL text stands here and in the db_ modules only, one function a call, one
transaction each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from psycopg import AsyncConnection, IsolationLevel
from psycopg.errors import InvalidSchemaName, UndefinedFunction
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from reproq_listen.db.connection import Connection
from reproq_listen.db.contract import SERVED, Served, qualifier
from reproq_listen.db.errors import CallRefused, DatabaseAway
from reproq_listen.errors import ContractError
from reproq_listen.model import ClaimedTask

_PREPARE_AFTER = 2  # calls of the same text
_UNDEFINED_FUNCTION = "42883"
_NO_SUCH_SCHEMA = "3F000"

_SESSION = SQL("""
    select current_setting('default_transaction_isolation'),
           pg_is_in_recovery() or current_setting('default_transaction_read_only')::boolean, pg_backend_pid()
""")
_ROLE = SQL("select quote_ident(current_user)")
_REGISTER = SQL("""
    select {schema}reproq_register_worker(
        p_worker_id => %s::text, p_hostname => %s::text, p_concurrency => %s::integer,
        p_queues => %s::text[], p_version => %s::text, p_allowed_modules => %s::text[])
""")
_UNREGISTER = SQL("select {schema}reproq_unregister_worker(p_worker_id => %s::text, p_incarnation => %s::uuid)")
# A year that Python's calendar lacks, written by somebody else, must not make a claimed row unreadable.
_CLAIM = SQL("""
    select c.result_id, c.lease_token, c.queue_name, c.priority, c.task_path, c.spec_json::text,
           c.attempts, c.max_attempts, c.timeout_seconds,
           greatest(least(c.enqueued_at, '9999-12-30 00:00+00'), '0001-01-02 00:00+00'),
           make_interval(secs => extract(epoch from c.waited)::double precision), c.lost_count
    from {schema}reproq_claim(
        p_worker_id => %s::text, p_queues => %s::text[], p_limit => %s::integer, p_lease => %s::interval,
        p_aging_factor => %s::double precision, p_incarnation => %s::uuid) as c
""")
_HEARTBEAT = SQL("""
    select h.result_id, h.answer
    from {schema}reproq_heartbeat(
        p_worker_id => %s::text, p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],
        p_lease => %s::interval, p_incarnation => %s::uuid) as h
""")
# Many JSON values travel as one JSON array: as an array of texts each would be quoted here and unquoted there.
_COMPLETE = SQL("""
    select f.result_id, f.answer, null::double precision
    from {schema}reproq_complete(
        p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],
        p_returns => array(
            select r.value from jsonb_array_elements(%s::jsonb) with ordinality as r (value, place) order by r.place),
        p_logs_uris => %s::text[],
        p_accounts => array(
            select nullif(a.value, 'null')
            from jsonb_array_elements(%s::jsonb) with ordinality as a (value, place)
            order by a.place)) as f
""")
_FAIL = SQL("""
    select f.result_id, f.answer,
           extract(epoch from f.run_after - {schema}reproq_now())::double precision
    from {schema}reproq_fail(
        p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],
        p_errors => %s::text[]::jsonb[], p_retryable => %s::boolean[], p_logs_uris => %s::text[]) as f
""")
_SAVE_METADATA = SQL("""
    select s.result_id, s.answer
    from {schema}reproq_save_metadata(
        p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[], p_metadata => %s::text[]::jsonb[]) as s
""")
_RELEASE = SQL("""
    select r.result_id, r.answer, null::double precision
    from {schema}reproq_release(p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[]) as r
""")
_RECLAIM = SQL("select r.result_id, r.answer from {schema}reproq_reclaim(p_limit => %s::integer) as r")
_NEXT_WAKE = SQL("""
    select extract(epoch from {schema}reproq_next_wake(p_queues => %s::text[]))::double precision
""")
# The canary rides on a question that is asked anyway: an idle worker stays within its few statements a minute.
_NEXT_WAKE_AND_CANARY = SQL("""
    select extract(epoch from {schema}reproq_next_wake(p_queues => %s::text[]))::double precision,
           pg_notify((select c.control from {schema}reproq_channels() as c), %s::text)
""")
_ENQUEUE_MANY = SQL("select e.result_id from {schema}reproq_enqueue_many(p_tasks => %s::jsonb) as e order by e.ordinal")
_CANCEL = SQL("select {schema}reproq_cancel(p_result_id => %s::bigint)")
_LOOK = SQL("""
    select t.result_id, t.status, t.attempts, t.return_json::text, t.last_error, t.started_at, t.finished_at
    from {schema}task_runs as t
    where t.result_id = any (%s::bigint[])
    order by t.result_id
""")
_REASON = SQL("select set_config('reproq.reason', %s::text, true)")
_CALLED = re.compile(r"\{schema\}reproq_(\w+)\(")
_CHANNELS = SQL("select c.ready, c.control from {schema}reproq_channels() as c")
_LISTEN = SQL("listen {}")


class Answer(NamedTuple):
    """What the database says about one attempt. `delay`: seconds until a failed attempt is retried."""

    result_id: int
    answer: str
    delay: float | None = None


class Channels(NamedTuple):
    """The channels on which a schema notifies."""

    ready: str
    control: str


class TaskState(NamedTuple):
    """How a task stands."""

    result_id: int
    status: str
    attempts: int
    result: str | None  # JSON text
    last_error: str | None
    started_at: datetime | None
    finished_at: datetime | None


class Database:
    """The SQL interface over one connection. Every method raises CallError (connection.py)."""

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self._connection = connection
        self._prefix = qualifier(schema)
        self._statements: dict[int, tuple[bytes, str]] = {}  # by identity: all are constants of this module

    async def close(self) -> None:
        await self._connection.close()

    async def contract(self) -> Served:
        """Give the numbers of the interface that the schema serves. Raises ContractError if it has none."""
        try:
            rows = await self._rows(SERVED)
        except CallRefused as error:
            if error.sqlstate in (_UNDEFINED_FUNCTION, _NO_SUCH_SCHEMA):
                raise ContractError("the database has no reproq schema") from None
            raise
        return Served(rows[0][0], rows[0][-1])

    async def role(self) -> str:
        """The role that asks, as a statement would name it."""
        return str((await self._rows(_ROLE))[0][0])

    async def register(
        self,
        worker_id: str,
        hostname: str,
        concurrency: int,
        queues: Sequence[str],
        version: str,
        allowed_modules: Sequence[str],
    ) -> UUID:
        """Enter the worker in the registry and give the incarnation of this start."""
        args = (worker_id, hostname, concurrency, list(queues), version, list(allowed_modules))
        rows = await self._rows(_REGISTER, args)
        incarnation: UUID = rows[0][0]
        return incarnation

    async def unregister(self, worker_id: str, incarnation: UUID) -> None:
        """Take this start of the worker out of the registry."""
        await self._rows(_UNREGISTER, (worker_id, incarnation))

    async def claim(
        self,
        worker_id: str,
        incarnation: UUID,
        queues: Sequence[str],
        limit: int,
        lease: timedelta,
        aging_factor: float,
    ) -> list[ClaimedTask]:
        """Take up to `limit` tasks, in the order they should start."""
        args = (worker_id, list(queues), limit, lease, aging_factor, incarnation)
        return [ClaimedTask(*row) for row in await self._rows(_CLAIM, args)]

    async def heartbeat(
        self, worker_id: str, incarnation: UUID, held: Sequence[ClaimedTask], lease: timedelta
    ) -> list[Answer]:
        """Renew: ok | lost | cancel | busy, and unknown for rows of ours that are not in `held`."""
        args = (worker_id, *_fences(held), lease, incarnation)
        return _answers(await self._rows(_HEARTBEAT, args))

    async def complete(
        self,
        tasks: Sequence[ClaimedTask],
        returns: Sequence[str],
        logs_uris: Sequence[str | None],
        accounts: Sequence[str | None],
    ) -> list[Answer]:
        """Store results and what they took (JSON texts, each one value): ok | already | lost | busy."""
        took = (account or "null" for account in accounts)
        args = (*_fences(tasks), f"[{','.join(returns)}]", list(logs_uris), f"[{','.join(took)}]")
        return _answers(await self._rows(_COMPLETE, args))

    async def save_metadata(self, tasks: Sequence[ClaimedTask], metadata: Sequence[str]) -> list[Answer]:
        """Set top-level keys of the metadata of running tasks (JSON texts), in this order: ok | lost | busy."""
        return _answers(await self._rows(_SAVE_METADATA, (*_fences(tasks), list(metadata))))

    async def fail(
        self, tasks: Sequence[ClaimedTask], errors: Sequence[str], logs_uris: Sequence[str | None]
    ) -> list[Answer]:
        """Store errors (JSON texts): retry | failed | already | lost | busy. The error's kind decides about a retry."""
        args = (*_fences(tasks), list(errors), [None] * len(tasks), list(logs_uris))
        return _answers(await self._rows(_FAIL, args))

    async def release(self, tasks: Sequence[ClaimedTask]) -> list[Answer]:
        """Give tasks back, attempts not charged: ok | already | lost | busy."""
        return _answers(await self._rows(_RELEASE, _fences(tasks)))

    async def reclaim(self, limit: int) -> list[Answer]:
        """Return expired leases and settle what is due: ready | failed."""
        return _answers(await self._rows(_RECLAIM, (limit,)))

    async def next_wake(self, queues: Sequence[str], canary: str | None = None) -> float | None:
        """Seconds until a claim can find something: 0 = now, None = nothing known ahead.

        `canary`, if given, is sent on the control channel, for our own listener to hear.
        """
        if canary is None:
            rows = await self._rows(_NEXT_WAKE, (list(queues),))
        else:
            rows = await self._rows(_NEXT_WAKE_AND_CANARY, (list(queues), canary))
        seconds: float | None = rows[0][0]
        return seconds

    async def enqueue_many(self, tasks: Sequence[Mapping[str, object]]) -> list[int]:
        """Enqueue tasks, all or none; the keys are the parameters of `reproq_enqueue` without `p_`."""
        rows = await self._rows(_ENQUEUE_MANY, (msgspec.json.encode(tasks).decode(),))
        return [row[0] for row in rows]

    async def cancel(self, result_id: int) -> str:
        """Cancel a task: cancelled | requested | terminal | missing."""
        rows = await self._rows(_CANCEL, (result_id,))
        return str(rows[0][0])

    async def look(self, result_ids: Sequence[int]) -> list[TaskState]:
        """Say how these tasks stand, by id; a missing one is left out."""
        return [TaskState(*row) for row in await self._rows(_LOOK, (list(result_ids),))]

    async def _rows(self, query: SQL, args: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        text, operation = self._statement(query)

        async def work(connection: AsyncConnection) -> list[tuple[Any, ...]]:
            if connection.isolation_level is None:
                return await (await connection.execute(text, args, binary=True)).fetchall()
            async with connection.transaction():
                return await (await connection.execute(text, args, binary=True)).fetchall()

        return await self._connection.run(work, operation)

    def _statement(self, query: SQL) -> tuple[bytes, str]:
        """The text of a call in our schema, and its name. Put together once: it would cost as much as the call."""
        known = self._statements.get(id(query))
        if known is None:
            known = query.format(schema=self._prefix).as_bytes(), _operation(query)
            self._statements[id(query)] = known
        return known

    async def records(
        self, query: SQL, args: Sequence[object] | Mapping[str, object] = (), *, reason: str | None = None
    ) -> list[dict[str, Any]]:
        """Run a statement of a module beside this one, in one transaction; each row by the names of its columns.

        `reason` goes into the audit log with what the statement does.
        """
        text: Composed = query.format(schema=self._prefix)

        async def work(connection: AsyncConnection) -> list[dict[str, Any]]:
            cursor = connection.cursor(row_factory=dict_row)
            if reason is None and connection.isolation_level is None:
                return await (await cursor.execute(text, args)).fetchall()
            async with connection.transaction():
                if reason is not None:
                    await cursor.execute(_REASON, (reason,))
                return await (await cursor.execute(text, args)).fetchall()

        return await self._connection.run(work, _operation(query))


async def prepare_session(connection: AsyncConnection) -> None:
    """Refuse a server that cannot write, and force READ COMMITTED where the default is another level.

    Nothing is SET: behind a transaction pooler that would leak to other clients. Statements are prepared where the
    backend that answers is the one that was connected to. A pooler never looks so: it hands out numbers of its own.
    """
    row = await (await connection.execute(_SESSION)).fetchone()
    isolation, read_only, backend = row if row is not None else ("", True, 0)
    if read_only:
        raise DatabaseAway("the server is read-only (a standby, or a demoted primary)", "25006")
    if isolation != "read committed":
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    if backend == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_AFTER


async def subscribe(connection: AsyncConnection, schema: str | None) -> Channels:
    """LISTEN on both channels of the schema. Where there is none (a DSN that reaches another database), on those of
    public: the canary finds out."""
    channels = Channels("reproq_ready", "reproq_control")
    with suppress(UndefinedFunction, InvalidSchemaName):
        cursor = await connection.execute(_CHANNELS.format(schema=qualifier(schema)))
        channels = Channels(*(await cursor.fetchone() or channels))
    for channel in (channels.control, channels.ready):
        await connection.execute(_LISTEN.format(Identifier(channel)))
    return channels


def _operation(query: SQL) -> str:
    """The name of the function that a statement calls, without `reproq_`; `look` for a statement of another kind."""
    called = _CALLED.search(query.as_string())
    return called[1] if called else "look"


def _fences(tasks: Sequence[ClaimedTask]) -> tuple[list[int], list[UUID]]:
    return [task.result_id for task in tasks], [task.lease_token for task in tasks]


def _answers(rows: list[tuple[Any, ...]]) -> list[Answer]:
    return [Answer(*row) for row in rows]
