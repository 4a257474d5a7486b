"""The metadata writer on a real database: what is refused is dropped, and holds up nothing."""

from __future__ import annotations

import asyncio
from typing import LiteralString

import pytest
from psycopg import sql

from reproq_listen.worker.metadata_writer import MetadataWriter
from tests.support.database import Database
from tests.support.services import running, services
from tests.support.workers import enqueue, row

TRIGGER: LiteralString = """
    create function mine() returns trigger language plpgsql as $$ begin
        if new.metadata_json ? 'bad' then raise exception 'no' using errcode = {}; end if;
        return new;
    end $$;
    create trigger mine before update on task_runs for each row execute function mine();
"""


@pytest.mark.parametrize("state", ["57014", "53400", "23514", "P0001", "22000"])
def test_metadata_that_is_refused_holds_up_no_other(database: Database, state: str) -> None:
    """A statement timeout, a constraint or a trigger refuses that of one task: the others of its call are written."""
    ids = [enqueue(database, "say", "x") for _ in range(5)]
    with database.connect() as owner:
        owner.execute(sql.SQL(TRIGGER).format(sql.Literal(state)))

    async def scenario() -> None:
        async with services(database) as worker:
            tasks = await worker.claim()
            writer = MetadataWriter(worker.queries, worker.log)
            for task in tasks:
                writer.put(task, b'{"bad": 1}' if task is tasks[2] else b'{"good": 1}')
            async with running(writer.run()), asyncio.timeout(4):
                for task in tasks:
                    await writer.flush(task)

    asyncio.run(scenario())
    wanted = [{} if place == 2 else {"good": 1} for place in range(5)]
    assert [row(database, result_id)["metadata_json"] for result_id in ids] == wanted
