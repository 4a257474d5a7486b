"""The check of LISTEN: a notification sent on one connection must arrive on another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from uuid import uuid4

import msgspec
from psycopg import AsyncConnection

from reproq_listen.db.catalog_queries import listen
from reproq_listen.db.connection import CALL_LIMIT, abort_socket, connect, is_direct, with_deadline
from reproq_listen.db.errors import CallError
from reproq_listen.doctor.findings import Finding, error, ok

_ECHO_LIMIT = 3.0  # seconds
_WHY = "workers find new tasks by polling only, and learn of a cancel at their next heartbeat"
_REMEDY_REFUSED = "let --listen-dsn name the primary server that --dsn names, or leave it out"
_REMEDY = "let --listen-dsn reach the database of --dsn directly, without a transaction pooler"


async def notifications_arrive(
    listen_conninfo: str, send: Callable[[str], Awaitable[object]], *, is_for_listen: bool
) -> Finding:
    """LISTEN where workers listen. `send` notifies on the connection that workers claim with. `is_for_listen`: as for
    a `Listener`."""
    try:
        connection = await connect(listen_conninfo)
    except CallError as problem:
        return error("listen", f"no connection to listen on: {problem}", _WHY, "check --listen-dsn, or leave it out")
    try:
        if not (is_for_listen or await with_deadline(connection, is_direct(connection), CALL_LIMIT)):
            return error(
                "listen", "a pooler is between this machine and the server: workers do not LISTEN", _WHY, _REMEDY
            )
        await with_deadline(connection, listen(connection), CALL_LIMIT)
        nonce = uuid4().hex
        began = asyncio.get_running_loop().time()
        await send(msgspec.json.encode({"op": "canary", "id": nonce}).decode())
        if await _arrives(connection, nonce):
            took = asyncio.get_running_loop().time() - began
            return ok("listen", f"a notification arrived after {took * 1000:.1f} ms")
        return error(
            "listen", f"LISTEN was accepted, but no notification arrived within {_ECHO_LIMIT:g} s", _WHY, _REMEDY
        )
    except CallError as problem:
        return error("listen", f"the server refuses LISTEN or NOTIFY: {problem}", _WHY, _REMEDY_REFUSED)
    finally:
        abort_socket(connection)
        await connection.close()


async def _arrives(connection: AsyncConnection, nonce: str) -> bool:
    async def wait() -> bool:
        async for notify in connection.notifies():
            if nonce in notify.payload:
                return True
        return False

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ECHO_LIMIT):
            return await wait()
    return False
