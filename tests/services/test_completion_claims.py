"""Claims that go with completions, on a real database: the result is stored, whatever becomes of the claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reproq_listen.db.errors import CallError, RowRefused
from reproq_listen.model import ClaimedTask
from reproq_listen.worker.claimer import Claimed, Claimer
from reproq_listen.worker.result_writer import AttemptResult, ResultKind, ResultWriter
from tests.services.test_claimer import SLOW_CLAIMS, claimer
from tests.support.database import Database
from tests.support.executing import until
from tests.support.services import AnswerBook, running, services
from tests.support.workers import enqueue

REFUSED_CLAIMS = """
    create function refuse() returns trigger language plpgsql as $$ begin raise exception 'the shop is closed'; end $$;
    create trigger refuse before update on task_runs for each row
    when (old.status = 'READY' and new.status = 'RUNNING') execute function refuse();
"""


@asynccontextmanager
async def completing(
    database: Database, came: list[list[ClaimedTask] | CallError]
) -> AsyncIterator[tuple[Claimer, ResultWriter, ClaimedTask, AnswerBook]]:
    """A result writer whose next call claims one task, too, and a claimed task; another one can be claimed."""
    for _ in range(2):
        enqueue(database, "say", "x")
    async with services(database) as worker:
        claims, book = claimer(worker), AnswerBook()
        (task,) = (await claims.take(1)).tasks
        wanted = [1]
        writer = ResultWriter(
            *(worker.queries, book.note, worker.log),
            next_claim=lambda: claims.request(wanted.pop()) if wanted else None,
            on_claimed=came.append,
        )
        async with running(writer.run()):
            yield claims, writer, task, book


def test_lease_that_comes_with_a_completion_counts_from_before_the_call(database: Database) -> None:
    """As that of any claim: behind a slow reply two attempts could run at once."""
    came: list[list[ClaimedTask] | CallError] = []

    async def scenario() -> Claimed:
        async with completing(database, came) as (claims, writer, task, book):
            with database.connect() as owner:
                owner.execute(SLOW_CLAIMS)
            before = asyncio.get_running_loop().time()
            writer.put(AttemptResult(task, ResultKind.COMPLETE, "1"))
            await until(lambda: bool(came), "the call is answered")
            tasks = came[0]
            assert isinstance(tasks, list)
            claimed = claims.answered(tasks)
            assert asyncio.get_running_loop().time() - before > 0.4
            assert claimed.sent_at - before == pytest.approx(0, abs=0.2)
            assert book.of(task) == ["ok"]
            return claimed

    assert len(asyncio.run(scenario()).tasks) == 1


def test_claim_that_is_refused_holds_up_no_result(database: Database) -> None:
    """A trigger refuses the claim, and with it the call: the result is stored by a call of its own."""
    came: list[list[ClaimedTask] | CallError] = []

    async def scenario() -> None:
        async with completing(database, came) as (claims, writer, task, book):
            with database.connect() as owner:
                owner.execute(REFUSED_CLAIMS)
            writer.put(AttemptResult(task, ResultKind.COMPLETE, "1"))
            assert await writer.flushed(5)
            assert (book.of(task), [type(each) for each in came]) == (["ok"], [RowRefused])
            assert not claims.answered(None).tasks
            assert claims.requested == 0

    asyncio.run(scenario())
