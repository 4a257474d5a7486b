"""How calls travel: prepared where that is safe, and repeated until they have an answer."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest
from psycopg import AsyncConnection

from reproq_listen.db.connection import Connection, connect
from reproq_listen.db.database import Database as Session
from reproq_listen.db.database import prepare_session
from reproq_listen.db.errors import CallError, CallTooSlow, DatabaseAway
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.json_lines import set_up
from tests.support.database import Database, wait_until
from tests.support.proxy import Proxy

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


def test_database_call_that_is_given_up_has_no_effect(database: Database) -> None:
    """It is cancelled in the server, at its deadline and when its caller is cancelled."""
    late = "with slept as materialized (select pg_sleep(1)) insert into late select from slept"
    with database.connect() as session:
        session.execute("create table late ()")

        async def write(connection: AsyncConnection) -> None:
            await connection.execute(late.encode())

        async def main() -> None:
            connection = Connection(database.dsn, "control", LOG, prepare_session, 0.3)
            with pytest.raises(CallTooSlow, match=r"no answer within 0\.3 s"):
                await connection.run(write)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connection.run(write)
            await connection.close()

        asyncio.run(main())
        running = "select count(*) from pg_stat_activity where query like 'with slept%%' and state = 'active'"
        wait_until(lambda: session.execute(running).fetchone() == (0,), what="no call goes on")
        assert session.execute("select count(*) from late").fetchone() == (0,)


def test_database_that_falls_silent_is_given_up(database: Database) -> None:
    """Neither an answer nor one to the cancel request: about a second after the deadline the call is over."""

    async def main() -> None:
        with Proxy(database.dsn) as proxy:
            connection = Connection(proxy.dsn, "control", LOG, prepare_session, 0.3)
            calls = WorkerQueries(Session(connection, None))
            await calls.next_wake(["default"])
            proxy.silent = True
            began = asyncio.get_running_loop().time()
            with pytest.raises(DatabaseAway, match=r"no answer within 0\.3 s"):
                await calls.next_wake(["default"])
            assert asyncio.get_running_loop().time() - began < 2.5
            await connection.close()

    asyncio.run(main())


def test_database_dead_peers_are_found_by_the_kernel(database: Database) -> None:
    """Connections over TCP have keepalives and a limit for data that is not acknowledged, unless the DSN says other."""

    async def main() -> None:
        with Proxy(database.dsn) as proxy:
            for more, idle in (("", 10), (" keepalives_idle=77", 77)):
                connection = await connect(proxy.dsn + more)
                with socket.socket(fileno=os.dup(connection.pgconn.socket)) as handle:
                    names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
                    found = [handle.getsockopt(socket.IPPROTO_TCP, name) for name in names]
                    assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert found == [idle, 5, 3, 10_000]
                await connection.close()

    asyncio.run(main())


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
