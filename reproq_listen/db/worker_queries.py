"""What a worker asks of the database: one function of the SQL interface a call, one transaction each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.errors import InvalidSchemaName, UndefinedFunction
from psycopg.sql import SQL, Identifier

from reproq_listen.db.contract import qualifier
from reproq_listen.db.database import Database
from reproq_listen.model import ClaimedTask

_REGISTER = SQL("""
    select {schema}reproq_register_worker(
        p_worker_id => %s::text, p_hostname => %s::text, p_concurrency => %s::integer,
        p_queues => %s::text[], p_version => %s::text, p_allowed_modules => %s::text[])
""")
_UNREGISTER = SQL("select {schema}reproq_unregister_worker(p_worker_id => %s::text, p_incarnation => %s::uuid)")
# A foreign writer may store a year that Python's calendar lacks; the claimed row must stay readable.
_CLAIM = SQL("""
    select c.result_id, c.lease_token, c.queue_name, c.priority, c.task_path, c.spec_json::text,
           c.attempts, c.max_attempts, c.timeout_seconds,
           greatest(least(c.enqueued_at, '9999-12-30 00:00+00'), '0001-01-02 00:00+00'),
           make_interval(secs => extract(epoch from c.waited)::double precision), c.lost_count,
           c.limit_key, c.ready_since::text
    from {schema}reproq_claim(
        p_worker_id => %s::text, p_queues => %s::text[], p_limit => %s::integer, p_lease => %s::interval,
        p_aging_factor => %s::double precision, p_hint => %s::jsonb, p_incarnation => %s::uuid) as c
""")
# A claim that is not full is followed by a sleep: the second function says how long.
_CLAIM_AND_NEXT_WAKE = SQL("""
    with claimed as materialized (
        select c.*
        from {schema}reproq_claim(
            p_worker_id => %s::text, p_queues => %s::text[], p_limit => %s::integer, p_lease => %s::interval,
            p_aging_factor => %s::double precision, p_hint => %s::jsonb, p_incarnation => %s::uuid) as c
    )
    select c.result_id, c.lease_token, c.queue_name, c.priority, c.task_path, c.spec_json::text,
           c.attempts, c.max_attempts, c.timeout_seconds,
           greatest(least(c.enqueued_at, '9999-12-30 00:00+00'), '0001-01-02 00:00+00'),
           make_interval(secs => extract(epoch from c.waited)::double precision), c.lost_count,
           c.limit_key, c.ready_since::text,
           null::double precision
    from claimed as c
    union all
    select null, null, null, null, null, null, null, null, null, null, null, null, null, null,
           extract(epoch from {schema}reproq_next_wake(p_queues => %s::text[]))::double precision
    where (select count(*) from claimed) < %s::integer
""")
_HEARTBEAT = SQL("""
    select h.result_id, h.answer
    from {schema}reproq_heartbeat(
        p_worker_id => %s::text, p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],
        p_lease => %s::interval, p_incarnation => %s::uuid) as h
""")
# Many JSON values are sent as one JSON array: in an array of texts each would be quoted and unquoted.
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
_COMPLETE_AND_CLAIM = SQL("""
    select c.answer, c.result_id, c.lease_token, c.queue_name, c.priority, c.task_path, c.spec_json::text,
           c.attempts, c.max_attempts, c.timeout_seconds,
           greatest(least(c.enqueued_at, '9999-12-30 00:00+00'), '0001-01-02 00:00+00'),
           make_interval(secs => extract(epoch from c.waited)::double precision), c.lost_count,
           c.limit_key, c.ready_since::text
    from {schema}reproq_complete_and_claim(
        p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],
        p_returns => array(
            select r.value from jsonb_array_elements(%s::jsonb) with ordinality as r (value, place) order by r.place),
        p_logs_uris => %s::text[],
        p_accounts => array(
            select nullif(a.value, 'null')
            from jsonb_array_elements(%s::jsonb) with ordinality as a (value, place)
            order by a.place),
        p_worker_id => %s::text, p_queues => %s::text[], p_limit => %s::integer, p_lease => %s::interval,
        p_aging_factor => %s::double precision, p_hint => %s::jsonb, p_incarnation => %s::uuid) as c
""")
_COMPLETE_AND_ENQUEUE = SQL("""
    select f.result_id, f.answer, null::double precision
    from {schema}reproq_complete_and_enqueue(
        p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[],
        p_returns => array(
            select r.value from jsonb_array_elements(%s::jsonb) with ordinality as r (value, place) order by r.place),
        p_tasks => %s::text[]::jsonb[], p_logs_uris => %s::text[],
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
_RESULTS = SQL("""
    select r.answer, r.expected, r.results::text, r.last_id
    from {schema}reproq_results(
        p_result_id => %s::bigint, p_lease_token => %s::uuid, p_after => %s::bigint) as r
""")
_STEPS_DONE = SQL("""
    select s.answer, s.steps::text, to_json(s.last_name)::text
    from {schema}reproq_steps_done(p_result_id => %s::bigint, p_lease_token => %s::uuid, p_after => %s::text) as s
""")
_STEP_SAVE = SQL("""
    select {schema}reproq_step_save(
        p_result_id => %s::bigint, p_lease_token => %s::uuid, p_name => %s::text, p_value => %s::jsonb)
""")
_RELEASE = SQL("""
    select r.result_id, r.answer, null::double precision
    from {schema}reproq_release(p_result_ids => %s::bigint[], p_lease_tokens => %s::uuid[]) as r
""")
_RECLAIM = SQL("select r.result_id, r.answer from {schema}reproq_reclaim(p_limit => %s::integer) as r")
_NEXT_WAKE = SQL("""
    select extract(epoch from {schema}reproq_next_wake(p_queues => %s::text[]))::double precision
""")
# The canary is part of a call that is made anyway: an idle worker stays within its few statements a minute.
_NEXT_WAKE_AND_CANARY = SQL("""
    select extract(epoch from {schema}reproq_next_wake(p_queues => %s::text[]))::double precision,
           pg_notify((select c.control from {schema}reproq_channels() as c), %s::text)
""")
_CHANNELS = SQL("select c.ready, c.control from {schema}reproq_channels() as c")
_LISTEN = SQL("listen {}")
_NOTIFY_ON = SQL("select {schema}reproq_notify_on(p_queues => %s::text[])")
_NOTIFY_OFF = SQL("select {schema}reproq_notify_off(p_queues => %s::text[])")
_OPEN_TRANSACTIONS = SQL("select {schema}reproq_open_transactions(p_before => %s::bigint)")


class Channels(NamedTuple):
    """The channels on which a schema notifies."""

    ready: str = "reproq_ready"
    control: str = "reproq_control"


class Answer(NamedTuple):
    """The database's answer about one attempt. `delay`: seconds until a failed attempt is retried."""

    result_id: int
    answer: str
    delay: float | None = None


class ClaimRequest(NamedTuple):
    """What a claim asks for. `hint`: JSON, see StreamPositions."""

    worker_id: str
    queues: list[str]
    limit: int
    lease: timedelta
    aging_factor: float
    hint: str | None
    incarnation: UUID


class NextWake(NamedTuple):
    """Seconds until a claim can find something: 0 = now, None = nothing known ahead."""

    seconds: float | None


class ResultsPage(NamedTuple):
    """Some of the results that a running task waited for. `results`: a JSON array, as text."""

    answer: str
    expected: int
    results: str
    last_id: int | None


class StepsPage(NamedTuple):
    """Some of the stored steps of a running task. `steps`: a JSON object, as text; `last_name`: JSON text."""

    answer: str
    steps: str
    last_name: str | None


class WorkerQueries:
    """The calls of a worker on one connection. Every method raises CallError."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        rows = await self._database.rows(_REGISTER, args)
        incarnation: UUID = rows[0][0]
        return incarnation

    async def unregister(self, worker_id: str, incarnation: UUID) -> None:
        """Take this start of the worker out of the registry."""
        await self._database.rows(_UNREGISTER, (worker_id, incarnation))

    async def claim(self, request: ClaimRequest) -> list[ClaimedTask]:
        """Take tasks, in the order they should start."""
        return [ClaimedTask(*row) for row in await self._database.rows(_CLAIM, request)]

    async def claim_and_next_wake(self, request: ClaimRequest) -> tuple[list[ClaimedTask], NextWake | None]:
        """As `claim`; and, unless it is full, as `next_wake`."""
        args = (*request, request.queues, request.limit)
        rows = await self._database.rows(_CLAIM_AND_NEXT_WAKE, args)
        next_wake = NextWake(rows.pop()[-1]) if rows and rows[-1][0] is None else None
        return [ClaimedTask(*row[:-1]) for row in rows], next_wake

    async def heartbeat(
        self, worker_id: str, incarnation: UUID, held: Sequence[ClaimedTask], lease: timedelta
    ) -> list[Answer]:
        """Renew: ok | lost | cancel | busy, and unknown for rows of ours that are not in `held`."""
        args = (worker_id, *_fences(held), lease, incarnation)
        return _answers(await self._database.rows(_HEARTBEAT, args))

    async def complete(
        self,
        tasks: Sequence[ClaimedTask],
        returns: Sequence[str],
        logs_uris: Sequence[str | None],
        usages: Sequence[str | None],
    ) -> list[Answer]:
        """Store results and resource usages (JSON texts, each one value): ok | already | lost | busy."""
        args = _completions(tasks, returns, logs_uris, usages)
        return _answers(await self._database.rows(_COMPLETE, args))

    async def complete_and_claim(
        self,
        tasks: Sequence[ClaimedTask],
        returns: Sequence[str],
        logs_uris: Sequence[str | None],
        usages: Sequence[str | None],
        request: ClaimRequest,
    ) -> tuple[list[Answer], list[ClaimedTask]]:
        """`complete`, and then `claim`, in one transaction."""
        args = (*_completions(tasks, returns, logs_uris, usages), *request)
        rows = await self._database.rows(_COMPLETE_AND_CLAIM, args)
        answers = [Answer(result_id, answer) for answer, result_id, *_ in rows if answer is not None]
        return answers, [ClaimedTask(*row) for answer, *row in rows if answer is None]

    async def complete_and_enqueue(
        self,
        tasks: Sequence[ClaimedTask],
        returns: Sequence[str],
        follow_ups: Sequence[str],
        logs_uris: Sequence[str | None],
        usages: Sequence[str | None],
    ) -> list[Answer]:
        """As `complete`, and enqueue the tasks that follow each (a JSON array) in the same transaction."""
        usage_texts = (usage or "null" for usage in usages)
        args = (f"[{','.join(returns)}]", list(follow_ups), list(logs_uris), f"[{','.join(usage_texts)}]")
        return _answers(await self._database.rows(_COMPLETE_AND_ENQUEUE, (*_fences(tasks), *args)))

    async def steps_done(self, task: ClaimedTask, after: str) -> StepsPage:
        """Stored steps of this running task, those with names behind `after`: ok | lost."""
        (page,) = await self._database.rows(_STEPS_DONE, (task.result_id, task.lease_token, after))
        return StepsPage(*page)

    async def step_save(self, task: ClaimedTask, name: str, value: str) -> str:
        """Store what a step returned (JSON text): ok | already | lost."""
        ((answer,),) = await self._database.rows(_STEP_SAVE, (task.result_id, task.lease_token, name, value))
        return str(answer)

    async def save_metadata(self, tasks: Sequence[ClaimedTask], metadata: Sequence[str]) -> list[Answer]:
        """Set top-level keys of the metadata of running tasks (JSON texts), in this order: ok | lost | busy."""
        return _answers(await self._database.rows(_SAVE_METADATA, (*_fences(tasks), list(metadata))))

    async def results(self, task: ClaimedTask, after: int) -> ResultsPage:
        """Results of what this running task waited for, of tasks behind `after`: ok | lost."""
        (page,) = await self._database.rows(_RESULTS, (task.result_id, task.lease_token, after))
        return ResultsPage(*page)

    async def fail(
        self, tasks: Sequence[ClaimedTask], errors: Sequence[str], logs_uris: Sequence[str | None]
    ) -> list[Answer]:
        """Store errors (JSON texts): retry | failed | already | lost | busy. The error's kind decides about a retry."""
        args = (*_fences(tasks), list(errors), [None] * len(tasks), list(logs_uris))
        return _answers(await self._database.rows(_FAIL, args))

    async def release(self, tasks: Sequence[ClaimedTask]) -> list[Answer]:
        """Give tasks back, attempts not charged: ok | already | lost | busy."""
        return _answers(await self._database.rows(_RELEASE, _fences(tasks)))

    async def reclaim(self, limit: int) -> list[Answer]:
        """Return expired leases and propagate overdue outcomes: ready | failed."""
        return _answers(await self._database.rows(_RECLAIM, (limit,)))

    async def next_wake(self, queues: Sequence[str], canary: str | None = None) -> float | None:
        """Seconds until a claim can find something: 0 = now, None = nothing known ahead.

        `canary`, if given, is sent on the control channel, to come back to our own listener.
        """
        if canary is None:
            rows = await self._database.rows(_NEXT_WAKE, (list(queues),))
        else:
            rows = await self._database.rows(_NEXT_WAKE_AND_CANARY, (list(queues), canary))
        seconds: float | None = rows[0][0]
        return seconds


async def subscribe(connection: AsyncConnection, schema: str | None) -> Channels:
    """LISTEN on both channels of the schema. Where it does not exist (the DSN reaches another database), on those of
    public: no canary will come back."""
    channels = Channels()
    with suppress(UndefinedFunction, InvalidSchemaName):
        cursor = await connection.execute(_CHANNELS.format(schema=qualifier(schema)))
        channels = Channels(*(await cursor.fetchone() or channels))
    for channel in (channels.control, channels.ready):
        await connection.execute(_LISTEN.format(Identifier(channel)))
    return channels


async def notify_on(connection: AsyncConnection, schema: str | None, queues: Sequence[str]) -> int:
    """From now on producers notify this session of tasks in these queues. Returns what `open_transactions` needs."""
    cursor = await connection.execute(_NOTIFY_ON.format(schema=qualifier(schema)), (list(queues),))
    row: tuple[int] = await cursor.fetchone() or (0,)
    return row[0]


async def notify_off(connection: AsyncConnection, schema: str | None, queues: Sequence[str]) -> None:
    """Take `notify_on` of the same queues back."""
    await connection.execute(_NOTIFY_OFF.format(schema=qualifier(schema)), (list(queues),))


async def open_transactions(connection: AsyncConnection, schema: str | None, before: int) -> int:
    """The number of transactions older than `before` that have written and not ended."""
    cursor = await connection.execute(_OPEN_TRANSACTIONS.format(schema=qualifier(schema)), (before,))
    row: tuple[int] = await cursor.fetchone() or (0,)
    return row[0]


def _fences(tasks: Sequence[ClaimedTask]) -> tuple[list[int], list[UUID]]:
    return [task.result_id for task in tasks], [task.lease_token for task in tasks]


def _completions(
    tasks: Sequence[ClaimedTask],
    returns: Sequence[str],
    logs_uris: Sequence[str | None],
    usages: Sequence[str | None],
) -> tuple[object, ...]:
    usage_texts = (usage or "null" for usage in usages)
    return *_fences(tasks), f"[{','.join(returns)}]", list(logs_uris), f"[{','.join(usage_texts)}]"


def _answers(rows: list[tuple[Any, ...]]) -> list[Answer]:
    return [Answer(*row) for row in rows]
