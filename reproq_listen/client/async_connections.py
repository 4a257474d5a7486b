"""As `connections`, for asyncio: psycopg, and SQLAlchemy over psycopg or asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from reproq_listen.client.connections import APPLICATION, POOLER_LOOK, Row, in_transaction, library, style_of, unknown
from reproq_listen.db import producer_queries as queries
from reproq_listen.db.dsn import conninfo
from reproq_listen.db.producer_queries import Style


class AsyncRunner(Protocol):
    """Runs one statement and gives its rows."""

    style: Style

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]: ...

    def listening(self, schema: str | None) -> AbstractAsyncContextManager[AsyncListening]:
        """Give a connection that is notified of ends. Raises ReproqError inside of a transaction of the program."""

    async def close(self) -> None:
        """Close what the runner has opened itself."""


def async_runner(target: Any) -> AsyncRunner:  # noqa: ANN401 - any of the libraries below
    """Give what runs statements on `target`. Raises SettingError if it is none of what is known."""
    if isinstance(target, str):
        return _Dsn(target)
    if isinstance(target, psycopg.AsyncConnection):
        return _Connection(target)
    names = {kind.__name__ for kind in type(target).__mro__}
    match library(target):
        case "psycopg_pool" if "AsyncConnectionPool" in names or "AsyncNullConnectionPool" in names:
            return _Pool(target)
        case "sqlalchemy" if "AsyncConnection" in names:
            return _SqlAlchemy(target)
        case "sqlalchemy" if names & {"AsyncSession", "async_scoped_session"}:
            return _SqlAlchemySession(target)
        case "sqlalchemy" if "AsyncEngine" in names:
            return _SqlAlchemyEngine(target)
    known = (
        "a psycopg AsyncConnection or AsyncConnectionPool, an SQLAlchemy AsyncConnection, AsyncSession or AsyncEngine"
    )
    raise unknown("AsyncClient", target, known)


class AsyncListening:
    """As Listening."""

    style: Style = "format"

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._is_direct = False

    async def start(self, schema: str | None) -> None:
        ((channel, backend),) = await self.rows(queries.channel(schema, self.style), ())
        self._is_direct = backend == self._connection.info.backend_pid
        if self._is_direct:
            await self._connection.execute(queries.listen(channel).encode())

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        return await _Connection(self._connection).rows(query, args)

    async def sleep_until(self, payload: str, seconds: float) -> None:
        """Return when this payload is notified, at the latest after `seconds`; behind a pooler earlier."""
        if not self._is_direct:
            await asyncio.sleep(min(seconds, POOLER_LOOK))
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            async for notify in self._connection.notifies(timeout=left, stop_after=1):
                if notify.payload == payload:
                    return

    async def end(self) -> None:
        """Listen no more."""
        if self._is_direct:
            await self._connection.execute(queries.UNLISTEN)


@asynccontextmanager
async def _listening(connection: psycopg.AsyncConnection[Any], schema: str | None) -> AsyncIterator[AsyncListening]:
    """Listen on a connection that is borrowed, and give it back as it was."""
    before = connection.autocommit
    await connection.set_autocommit(True)
    listening = AsyncListening(connection)
    try:
        await listening.start(schema)
        yield listening
    finally:
        if not connection.closed:
            await listening.end()
            await connection.set_autocommit(before)


class _Connection:
    """A connection of the program."""

    style: Style = "format"

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        async with self._connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(query.encode(), args)
            return await cursor.fetchall()

    def listening(self, schema: str | None) -> AbstractAsyncContextManager[AsyncListening]:
        if not self._connection.autocommit or self._connection.info.transaction_status is TransactionStatus.INTRANS:
            raise in_transaction("AsyncClient")
        return _listening(self._connection, schema)

    async def close(self) -> None:
        pass


class _Pool:
    """A pool of the program."""

    style: Style = "format"

    def __init__(self, pool: Any) -> None:  # noqa: ANN401
        self._pool = pool

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        async with self._pool.connection() as connection:
            return await _Connection(connection).rows(query, args)

    @asynccontextmanager
    async def listening(self, schema: str | None) -> AsyncIterator[AsyncListening]:
        async with self._pool.connection() as connection, _listening(connection, schema) as listening:
            yield listening

    async def close(self) -> None:
        pass


class _Dsn:
    """One connection of our own, opened on use and again after it broke. Tasks of the event loop take turns."""

    style: Style = "format"

    def __init__(self, dsn: str) -> None:
        self._conninfo = conninfo(dsn, "AsyncClient")
        self._lock = asyncio.Lock()
        self._open: psycopg.AsyncConnection[Any] | None = None

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        async with self._lock:
            if self._open is None or self._open.closed:
                self._open = await self._connect()
            return await _Connection(self._open).rows(query, args)

    @asynccontextmanager
    async def listening(self, schema: str | None) -> AsyncIterator[AsyncListening]:
        async with await self._connect() as connection:
            listening = AsyncListening(connection)
            await listening.start(schema)
            yield listening

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, fallback_application_name=APPLICATION
        )

    async def close(self) -> None:
        async with self._lock:
            if self._open is not None:
                await self._open.close()


class _SqlAlchemy:
    """An SQLAlchemy connection of the program."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401
        self._connection = connection
        self.style: Style = style_of(connection)

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        found: Sequence[Row] = (await self._connection.exec_driver_sql(query, args)).all()
        return found

    def listening(self, schema: str | None) -> AbstractAsyncContextManager[AsyncListening]:
        raise in_transaction("AsyncClient")

    async def close(self) -> None:
        pass


class _SqlAlchemySession:
    """An SQLAlchemy session of the program: its transaction, which begins if there is none."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401
        self._session = session
        self.style: Style = style_of(session.get_bind())

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        return await _SqlAlchemy(await self._session.connection()).rows(query, args)

    def listening(self, schema: str | None) -> AbstractAsyncContextManager[AsyncListening]:
        raise in_transaction("AsyncClient")

    async def close(self) -> None:
        pass


class _SqlAlchemyEngine:
    """An SQLAlchemy engine of the program. With asyncpg there is no waiting: it has another interface for LISTEN."""

    def __init__(self, engine: Any) -> None:  # noqa: ANN401
        self._engine = engine
        self.style: Style = style_of(engine)

    async def rows(self, query: str, args: tuple[object, ...]) -> Sequence[Row]:
        async with self._engine.begin() as connection:
            return await _SqlAlchemy(connection).rows(query, args)

    @asynccontextmanager
    async def listening(self, schema: str | None) -> AsyncIterator[AsyncListening]:
        async with self._engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            if not isinstance(driver, psycopg.AsyncConnection):
                raise in_transaction("AsyncClient")
            async with _listening(driver, schema) as listening:
                yield listening

    async def close(self) -> None:
        pass
