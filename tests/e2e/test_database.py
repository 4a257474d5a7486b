"""How calls travel: prepared where that is safe, and repeated until they have an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from psycopg import AsyncConnection

from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database as Session
from reproq_listen.db.database import prepare_session
from reproq_listen.db.errors import CallError
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.json_lines import set_up
from tests.support.database import Database

LOG = set_up(level=60)


def on(database: Database, work: Callable[[Connection, WorkerQueries], Awaitable[None]]) -> None:
    async def main() -> None:
        connection = Connection(database.dsn, "control", LOG, prepare_session)
        try:
            await work(connection, WorkerQueries(Session(connection, None)))
        finally:
            await connection.close()

    asyncio.run(main())


async def prepared(connection: AsyncConnection) -> list[str]:
    return [
        row[0] for row in await (await connection.execute("select statement from pg_prepared_statements")).fetchall()
    ]


def test_database_prepares_repeated_calls_on_a_direct_connection(database: Database) -> None:
    """From the third on the server has parsed it before."""

    async def work(connection: Connection, calls: WorkerQueries) -> None:
        for _ in range(4):
            await calls.next_wake(["default"])
        assert any("reproq_next_wake" in text for text in await connection.run(prepared))

    on(database, work)


def test_database_recovers_from_a_lost_prepared_statement(database: Database) -> None:
    """A pooler between us and the server has given us another session: a new connection answers."""

    async def work(connection: Connection, calls: WorkerQueries) -> None:
        async def forget(session: AsyncConnection) -> None:
            for text in ("begin", "deallocate all", "commit"):
                session.pgconn.exec_(text.encode())

        for _ in range(4):
            await calls.next_wake(["default"])
        await connection.run(forget)
        errors: list[CallError] = []
        assert await retry_until_answered(lambda: calls.next_wake(["default"]), LOG, on_error=errors.append) is None
        assert [error.sqlstate for error in errors] == ["26000"]

    on(database, work)
