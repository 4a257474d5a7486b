"""Calls of a worker on a real database that fail on this side of the connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from psycopg import AsyncConnection

from reproq_listen.db.connection import Connection
from reproq_listen.db.database import prepare_session
from reproq_listen.db.errors import DatabaseAway
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.logs.json_lines import set_up
from tests.support.database import Database


def test_call_that_runs_out_of_memory_is_a_failed_call(database: Database) -> None:
    """Whether it took effect is unknown. It is repeated on a new connection, as after a lost reply."""
    backends: list[int] = []

    async def scenario() -> None:
        log = set_up(level=60)
        connection = Connection(database.dsn, "test", log, prepare_session)

        async def work(session: AsyncConnection) -> Any:
            backends.append(session.info.backend_pid)
            found = await (await session.execute("select 1")).fetchall()
            if len(backends) <= 2:
                raise MemoryError
            return found

        with pytest.raises(DatabaseAway, match="too little memory"):
            await connection.run(work)
        assert await retry_until_answered(lambda: connection.run(work), log) == [(1,)]
        await connection.close()

    asyncio.run(scenario())
    assert len(set(backends)) == 3
