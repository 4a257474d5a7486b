"""Releases the tasks of a worker that was killed while it shut down: `python -m reproq_listen.worker.release_leases`.

Its guard starts this when no process of a task is left. Standard input is a LostWorker as JSON. Nothing is released of
a worker that was killed without being told to stop: a task may have killed it, so its attempts count.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import msgspec
from msgspec import Struct

from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database, prepare_session
from reproq_listen.db.dsn import conninfo, secrets
from reproq_listen.db.errors import CallError
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.json_lines import set_up

MODULE = "reproq_listen.worker.release_leases"
_LIMIT = 10.0  # seconds
_PAUSE = 0.2  # seconds until rows that another session holds, or a late claim, are looked for again
_AT_ONCE = timedelta(milliseconds=2)  # a heartbeat releases what was claimed more than half a lease ago


class LostWorker(Struct, frozen=True):
    """The worker, as the database knows it, and its way there."""

    dsn: str
    schema: str | None
    worker_id: str
    incarnation: UUID


async def release(worker: LostWorker) -> None:
    """Release all its tasks, uncharged, and take it out of the registry. Gives up after some seconds."""
    connection = Connection(conninfo(worker.dsn), "release", set_up(secrets(worker.dsn)), prepare_session)
    queries = WorkerQueries(Database(connection, worker.schema))
    with suppress(CallError, TimeoutError):
        async with asyncio.timeout(_LIMIT):
            has_none = False
            while not has_none:
                await asyncio.sleep(_PAUSE)
                has_none = not await queries.heartbeat(worker.worker_id, worker.incarnation, (), _AT_ONCE)
            await queries.unregister(worker.worker_id, worker.incarnation)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(release(msgspec.json.decode(sys.stdin.buffer.read(), type=LostWorker)))
