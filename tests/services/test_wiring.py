"""What the parts of a worker tell each other, in a real worker whose calls go through a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database as Session
from reproq_listen.db.database import prepare_session
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.signals import Stop
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.worker.registration import Registration
from reproq_listen.worker.result_writer import AttemptResult, ResultKind
from reproq_listen.worker.worker import Databases, Worker
from tests.support.database import Database
from tests.support.executing import until
from tests.support.proxy import Proxy
from tests.support.services import running, settings_of_worker
from tests.support.workers import enqueue


@asynccontextmanager
async def worker_behind(proxy: Proxy) -> AsyncIterator[Worker]:
    """A worker that is registered and beats, once its first beat is over; the next one is due in 30 s."""
    log = set_up(level=60)
    changes: dict[str, Any] = {"lease": timedelta(seconds=300), "heartbeat": timedelta(seconds=30)}
    settings = settings_of_worker(dsn=proxy.dsn, executor="spawn", **changes)
    connections = [Connection(proxy.dsn, job, log, prepare_session) for job in Databases._fields]
    databases = Databases(*(Session(connection, None) for connection in connections))
    registration = Registration(WorkerQueries(databases.control), settings)
    worker = Worker(settings, databases, registration, Stop(), ServiceManager.adopt({}, log), 1024, log)
    await registration.enter()
    async with running(worker._heartbeat.run()):
        await until(lambda: any(b"reproq_heartbeat" in sent for sent in proxy.statements), "the first beat")
        await asyncio.sleep(0.3)  # a beat that is answered after the claim hurries by itself
        assert due_in(worker) > 25
        yield worker
    for connection in connections:
        await connection.close()


def due_in(worker: Worker) -> float:
    """Seconds until the next beat."""
    return worker._heartbeat._due - asyncio.get_running_loop().time()


def test_lost_reply_of_a_claim_hurries_the_heartbeat(database: Database) -> None:
    """Its tasks run nowhere. The database may return them after 20 s: a beat comes then, and not after its interval."""
    enqueue(database, "say", "x")

    async def scenario(proxy: Proxy) -> None:
        async with worker_behind(proxy) as worker:
            proxy.cut_reply_to = b"reproq_claim"
            await worker._claimer.take(1)
            assert proxy.cuts == 1
            assert due_in(worker) < 21

    with Proxy(database.dsn) as proxy:
        asyncio.run(scenario(proxy))


def test_lost_reply_of_a_completion_that_claims_hurries_the_heartbeat(database: Database) -> None:
    """As that of a claim; the result is stored by the next call."""
    for _ in range(2):
        enqueue(database, "say", "x")

    async def scenario(proxy: Proxy) -> None:
        async with worker_behind(proxy) as worker:
            (task,) = (await worker._claimer.take(1)).tasks
            worker._completion_claims.is_saturated = True
            proxy.cut_reply_to = b"reproq_complete_and_claim"
            async with running(worker._results.run()):
                worker._results.put(AttemptResult(task, ResultKind.COMPLETE, "1"))
                assert await worker._results.flushed(5)
            assert proxy.cuts == 1
            assert due_in(worker) < 21

    with Proxy(database.dsn) as proxy:
        asyncio.run(scenario(proxy))
