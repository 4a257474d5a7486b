"""The result writer on a real database: no result stops another one, and each has a definite answer or is kept."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reproq_listen.model import ClaimedTask
from reproq_listen.worker.result_writer import AttemptResult, ResultKind, ResultWriter
from tests.support.database import Database
from tests.support.executing import until
from tests.support.services import AnswerBook, Services, running, services
from tests.support.workers import enqueue, row

PAUSE = 0.05  # seconds between two tries of what is refused

ON_ROW: LiteralString = """
    create function mine() returns trigger language plpgsql as $$ begin
        if {} then raise exception 'the shop is closed'; end if;
        return new;
    end $$;
    create trigger mine before update on task_runs for each row execute function mine();
"""
ON_STATEMENT: LiteralString = """
    create function mine() returns trigger language plpgsql as $$ begin
        if {} then raise exception 'given up' using errcode = {}; end if;
        return null;
    end $$;
    create trigger mine after update on task_runs referencing new table as written
    for each statement execute function mine();
"""


@asynccontextmanager
async def writing(
    database: Database, number: int, **options: Any
) -> AsyncIterator[tuple[Services, ResultWriter, list[ClaimedTask], AnswerBook]]:
    """A result writer, and this many claimed tasks. `options`: see `services`."""
    for _ in range(number):
        enqueue(database, "say", "x")
    async with services(database, **options) as worker:
        book = AnswerBook()
        writer = ResultWriter(worker.queries, book.note, worker.log, refused_pause=PAUSE)
        tasks = await worker.claim(number) if number else []
        async with running(writer.run()):
            yield worker, writer, tasks, book


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


def success(task: ClaimedTask, text: str = '"fine"') -> AttemptResult:
    return AttemptResult(task, ResultKind.COMPLETE, text)


def execute(database: Database, statement: LiteralString, *values: object) -> None:
    """As the owner, with values as literals."""
    with database.connect() as owner:
        owner.execute(sql.SQL(statement).format(*map(sql.Literal, values)) if values else statement)


def condition(database: Database, template: LiteralString, test: LiteralString, *values: object) -> None:
    with database.connect() as owner:
        owner.execute(sql.SQL(template).format(sql.SQL(test), *map(sql.Literal, values)))


@pytest.mark.parametrize("state", ["57014", "53400", "53200"])
def test_batch_that_the_server_gives_up_is_split(database: Database, state: str) -> None:
    """Where three results of one call are too many, all are stored by smaller ones."""
    condition(database, ON_STATEMENT, "(select count(*) from written where status = 'SUCCESSFUL') > 2", state)

    async def scenario() -> None:
        async with writing(database, 9) as (_, writer, tasks, book):
            for task in tasks:
                writer.put(success(task))
            assert await writer.flushed(10)
            assert [book.of(task) for task in tasks] == [["ok"]] * 9

    run(scenario())


def test_batch_slower_than_the_statement_timeout_is_split(database: Database) -> None:
    """A trigger that takes its time, and a statement timeout that a batch exceeds and a single result does not."""
    condition(database, ON_ROW, "new.status = 'SUCCESSFUL' and pg_sleep(0.05) is null")

    async def scenario() -> None:
        dsn = make_conninfo(database.dsn, options="-c statement_timeout=200")
        async with writing(database, 8, dsn=dsn) as (_, writer, tasks, book):
            for task in tasks:
                writer.put(success(task))
            assert await writer.flushed(10)
            assert [book.of(task) for task in tasks] == [["ok"]] * 8

    run(scenario())


def test_batch_slower_than_the_worker_waits_is_split(database: Database) -> None:
    """A call without an answer is given up; whether it took effect is unknown, and the smaller ones find out."""
    condition(database, ON_ROW, "new.status = 'SUCCESSFUL' and pg_sleep(0.2) is null")

    async def scenario() -> None:
        async with writing(database, 6, limit=0.9) as (_, writer, tasks, book):
            for task in tasks:
                writer.put(success(task))
            assert await writer.flushed(20)
            assert {answer for task in tasks for answer in book.of(task)} <= {"ok", "already"}
            assert [len(book.of(task)) for task in tasks] == [1] * 6

    run(scenario())


@pytest.mark.parametrize("by", ["constraint", "trigger"])
def test_result_that_the_schema_of_its_owner_refuses_fails_its_task(database: Database, by: str) -> None:
    """The others of its batch are stored; it ends as invalid_result with what the database said."""
    if by == "constraint":
        execute(database, "alter table task_runs add constraint mine check (return_json is distinct from '\"bad\"')")
    else:
        condition(database, ON_ROW, "new.return_json = '\"bad\"'")

    async def scenario() -> None:
        async with writing(database, 7) as (_, writer, tasks, book):
            for task in tasks:
                writer.put(success(task, '"bad"' if task is tasks[3] else '"fine"'))
            assert await writer.flushed(10)
            assert [book.of(task) for task in tasks] == [["ok"]] * 3 + [["failed"]] + [["ok"]] * 3
            (error,) = row(database, tasks[3].result_id)["errors_json"]
            assert error["kind"] == "invalid_result"
            assert ("mine" if by == "constraint" else "the shop is closed") in error["message"]

    run(scenario())


def test_result_that_is_too_much_by_itself_fails_its_task(database: Database) -> None:
    """The server gives up each call with it: after some tries it ends as invalid_result. The others go on meanwhile."""
    condition(database, ON_STATEMENT, "exists (select from written where return_json = '\"slow\"')", "57014")

    async def scenario() -> None:
        async with writing(database, 4) as (_, writer, tasks, book):
            for task in tasks:
                writer.put(success(task, '"slow"' if task is tasks[0] else '"fine"'))
            assert await writer.flushed(10)
            assert [book.of(task) for task in tasks] == [["failed"], ["ok"], ["ok"], ["ok"]]
            (error,) = row(database, tasks[0].result_id)["errors_json"]
            assert (error["kind"], "given up" in error["message"]) == ("invalid_result", True)

    run(scenario())


def test_end_that_is_refused_whatever_it_is_stops_no_other_and_is_kept(database: Database) -> None:
    """A trigger refuses any end of one task. The others are stored, and it is, too, once the trigger is gone."""
    guarded = enqueue(database, "say", "x")
    condition(database, ON_ROW, "new.result_id = 1 and new.status <> 'RUNNING'")
    assert guarded == 1

    async def scenario() -> None:
        async with writing(database, 3) as (worker, writer, tasks, book):
            tasks += await worker.claim()
            for task in tasks:
                writer.put(success(task))
            assert not await writer.flushed(0.5)
            late = tasks[-1]
            writer.put(success(late))
            await until(lambda: book.of(late) == ["ok", "already"], "the late result has its answer")
            assert (len(writer), row(database, guarded)["status"]) == (1, "RUNNING")
            execute(database, "drop trigger mine on task_runs")
            assert await writer.flushed(5)
            assert row(database, guarded)["errors_json"][0]["kind"] == "invalid_result"

    run(scenario())


def test_end_that_is_refused_for_a_missing_right_is_kept(database: Database) -> None:
    """A human has to grant it; then all are stored as they are, also a release."""
    role = f"reproq_{uuid.uuid4().hex[:12]}"
    execute(
        database,
        f"create role {role}; grant execute on all functions in schema public to {role};"
        f"revoke execute on function reproq_complete, reproq_release from {role}",
    )

    async def scenario() -> None:
        dsn = make_conninfo(database.dsn, options=f"-c role={role}")
        async with writing(database, 5, dsn=dsn) as (_, writer, tasks, book):
            for task in tasks[1:]:
                writer.put(success(task))
            writer.put(AttemptResult(tasks[0], ResultKind.RELEASE))
            assert not await writer.flushed(0.5)
            assert (book.answers, len(writer)) == ({}, 5)
            execute(
                database,
                f"grant execute on function reproq_complete, reproq_release to {role}",
            )
            assert await writer.flushed(5)
            assert [book.of(task) for task in tasks] == [["ok"]] * 5

    try:
        run(scenario())
    finally:
        execute(database, f"drop owned by {role}; drop role {role}")


def test_two_attempts_of_one_task_never_share_a_call(database: Database) -> None:
    """The answers of a call have the task's id only: in one call both attempts would get the answer of one."""

    async def scenario() -> None:
        async with writing(database, 1) as (worker, writer, tasks, book):
            (old,) = tasks
            await worker.queries.release([old])
            (new,) = await worker.claim()
            writer.put(success(old))
            writer.put(success(new))
            assert await writer.flushed(5)
            assert (book.of(old), book.of(new)) == (["lost"], ["ok"])

    run(scenario())


@pytest.mark.parametrize("kind", list(ResultKind))
def test_busy_end_is_written_again(database: Database, kind: ResultKind) -> None:
    """Another session holds the row: the result is kept until it is free, and others are stored meanwhile."""

    async def scenario() -> None:
        async with writing(database, 2) as (_, writer, tasks, book):
            held, free = tasks
            with psycopg.connect(database.dsn) as holder:
                holder.execute("select from task_runs where result_id = %s for update", [held.result_id])
                text = '{"kind": "app_error"}' if kind is ResultKind.FAIL else "1"
                for task in tasks:
                    writer.put(AttemptResult(task, kind, text))
                assert not await writer.flushed(0.5)
                assert (len(book.of(free)), book.of(held), len(writer)) == (1, [], 1)
            assert await writer.flushed(5)
            assert book.of(held) == book.of(free)

    run(scenario())


def test_follow_up_that_waits_for_a_producer_holds_up_no_other_end(database: Database) -> None:
    """An open transaction has the unique key of a task to enqueue: only the end with this task waits for it."""
    follow_up = '[{"task_path": "app.tasks.say", "unique_key": "k"}]'

    async def scenario() -> None:
        async with writing(database, 3) as (_, writer, tasks, book):
            held, other, free = tasks
            with psycopg.connect(database.dsn) as producer:
                producer.execute("select reproq_enqueue('app.tasks.say', p_unique_key => 'k')")
                writer.put(AttemptResult(held, ResultKind.COMPLETE_AND_ENQUEUE, "1", follow_ups=follow_up))
                writer.put(AttemptResult(other, ResultKind.COMPLETE_AND_ENQUEUE, "1", follow_ups="[]"))
                writer.put(success(free))
                await until(lambda: (book.of(other), book.of(free)) == (["ok"], ["ok"]), "both are stored", 12)
                assert book.of(held) == []
            assert await writer.flushed(5)
            assert book.of(held) == ["ok"]

    run(scenario())
