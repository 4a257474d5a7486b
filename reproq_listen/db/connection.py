"""Connections to PostgreSQL: opened when needed, with a deadline for every call, closed after any doubtful error.

A peer that accepts bytes and never answers defeats keepalives and statement timeouts, so each call has a
deadline of its own. At the deadline the server is asked to cancel the call. If no answer comes the socket is shut down
under the driver; the call then ends as CallTooSlow. Cancelling a call does the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reproq_listen.db.addresses import attempts, default_parameters
from reproq_listen.db.errors import (
    CallError,
    CallRefused,
    CallTooSlow,
    DatabaseAway,
    DatabaseBusy,
    ValueRefused,
    classify,
)
from reproq_listen.errors import UnreachableError
from reproq_listen.logs.event_log import Event, Log

T = TypeVar("T")
Prepare = Callable[[AsyncConnection], Awaitable[None]]

CALL_LIMIT = 10.0  # seconds; a short lease makes it shorter
_CONNECT_LIMIT = 5.0  # seconds for each address
_CANCEL_LIMIT = 0.5  # seconds to send a cancel request, and for its effect
_CLOSE_LIMIT = 1.0  # seconds for a call to end after its socket was shut down
_BLOCKING_CONNECT_LIMIT = 10  # seconds

_DEFAULT_PARAMETERS = {
    "fallback_application_name": "reproq-listen",
    "client_encoding": "utf8",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


async def connect(conninfo: str, limit: float = CALL_LIMIT) -> AsyncConnection:
    """Open a connection in autocommit mode that prepares no statements by itself, as transaction poolers need.

    Each address of the DSN's hosts gets `limit` seconds, 5 at most, or the connect_timeout that is given. Raises
    CallError.
    """
    parameters: dict[str, Any] = {**_DEFAULT_PARAMETERS, **conninfo_to_dict(conninfo)}
    wanted = parameters.get("connect_timeout") or default_parameters().get("connect_timeout")
    each = float(wanted) if wanted and float(wanted) > 0 else min(limit, _CONNECT_LIMIT)
    parameters["connect_timeout"] = math.ceil(each)
    problems: list[CallError] = []
    for attempt in await attempts(parameters, each):
        try:
            async with asyncio.timeout(each):
                return await AsyncConnection.connect(
                    make_conninfo("", **attempt), autocommit=True, prepare_threshold=None
                )
        except TimeoutError:
            problems.append(DatabaseAway(f"no connection within {each:g} s"))
        except psycopg.Error as error:
            problems.append(classify(error))
    last = problems[-1]
    raise type(last)("; ".join(dict.fromkeys(map(str, problems))), last.sqlstate)


async def is_direct(connection: AsyncConnection) -> bool:
    """Whether the backend that answers is the one that was connected to. A pooler hands out process ids of its own."""
    row = await (await connection.execute("select pg_backend_pid()")).fetchone()
    return row is not None and row[0] == connection.info.backend_pid


def connect_blocking(conninfo: str, setting: str) -> psycopg.Connection[Any]:
    """Open a connection in autocommit mode, for programs that do nothing else meanwhile (`migrate`, `grants`).

    Raises UnreachableError, which names the setting that the DSN came from.
    """
    try:
        limit = {"connect_timeout": _BLOCKING_CONNECT_LIMIT, **conninfo_to_dict(conninfo)}["connect_timeout"]
        return psycopg.connect(conninfo, autocommit=True, connect_timeout=limit)
    except psycopg.OperationalError as error:
        raise UnreachableError(f"{setting}: the database cannot be reached: {str(error).strip()}") from error


def abort_socket(connection: AsyncConnection) -> None:
    """Shut the socket down under the driver: a call that waits on it ends now."""
    with (
        contextlib.suppress(OSError, psycopg.OperationalError),
        socket.socket(fileno=os.dup(connection.pgconn.socket)) as handle,
    ):
        handle.shutdown(socket.SHUT_RDWR)


async def with_deadline(connection: AsyncConnection, call: Coroutine[Any, Any, T], limit: float) -> T:
    """Await `call` for at most `limit` seconds. Raises CallError.

    At the deadline, or when cancelled: cancel it in the server, and shut the socket down if it has no answer soon.
    """
    task = asyncio.get_running_loop().create_task(call)
    expired = False
    try:
        await asyncio.wait({task}, timeout=limit)
        expired = not task.done()
    finally:
        if not task.done():
            await _give_up(connection, task)
        if task.done() and not task.cancelled():
            task.exception()  # retrieved here, or asyncio logs it as never retrieved
    try:
        if task.done():
            return task.result()
    except MemoryError:
        raise DatabaseAway("this process has too little memory for the answer") from None
    except psycopg.Error as error:
        if not expired:
            raise classify(error) from None
    raise CallTooSlow(f"no answer within {limit:g} s")


async def _give_up(connection: AsyncConnection, task: asyncio.Task[Any]) -> None:
    """End a call. In the server, too: there it would go on after its client has gone, and commit."""
    if psycopg.capabilities.has_cancel_safe():  # libpq 17; an older one blocks
        with contextlib.suppress(psycopg.Error, OSError):
            await connection.cancel_safe(timeout=_CANCEL_LIMIT)
            await asyncio.wait({task}, timeout=_CANCEL_LIMIT)
    if not task.done():
        abort_socket(connection)
        await asyncio.wait({task}, timeout=_CLOSE_LIMIT)


class Connection:
    """A connection for one job, reopened after an error that may have broken it. Its calls run one after another."""

    def __init__(self, conninfo: str, job: str, log: Log, prepare: Prepare, limit: float = CALL_LIMIT) -> None:
        self._conninfo = conninfo
        self._log = log.bind(connection=job)
        self._prepare = prepare
        self._limit = limit
        self._open: AsyncConnection | None = None
        self._lock = asyncio.Lock()
        self._away = False
        self.waits = 0  # calls that had to wait for another one

    @property
    def is_open(self) -> bool:
        return self._open is not None

    async def run(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]], operation: str = "call") -> T:
        """Run `work`, one transaction, within the limit. `operation` is its name in metrics.

        Raises CallError; if the connection may be broken, the next call reconnects.
        """
        self.waits += self._lock.locked()
        async with self._lock:
            started = time.monotonic()
            try:
                connection = await self._ready()
                answer = await with_deadline(connection, work(connection), self._limit)
            except BaseException as error:
                if not isinstance(error, DatabaseBusy | ValueRefused | CallRefused):
                    await self._drop()
                if isinstance(error, DatabaseAway):
                    self._note_away(error)
                self._note_call(operation, started, ok=False)
                raise
            self._note_back()
            self._note_call(operation, started, ok=True)
            return answer

    async def close(self) -> None:
        await self._drop()

    async def _ready(self) -> AsyncConnection:
        if self._open is None:
            self._open = await connect(self._conninfo, self._limit)
            await with_deadline(self._open, _as_coroutine(self._prepare, self._open), self._limit)
        return self._open

    async def _drop(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            abort_socket(connection)
            await connection.close()

    def _note_call(self, operation: str, started: float, *, ok: bool) -> None:
        self._log.debug(Event.DATABASE_CALLED, operation=operation, seconds=time.monotonic() - started, ok=ok)

    def _note_away(self, error: DatabaseAway) -> None:
        if not self._away:
            self._away = True
            self._log.warning(Event.DATABASE_AWAY, reason=str(error), sqlstate=error.sqlstate)

    def _note_back(self) -> None:
        if self._away:
            self._away = False
            self._log.info(Event.DATABASE_BACK)


async def _as_coroutine(prepare: Prepare, connection: AsyncConnection) -> None:
    await prepare(connection)
