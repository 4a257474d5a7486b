"""What the parts of a worker tell each other, in a real worker whose calls go through a proxy."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database as Session
from reproq_listen.db.database import prepare_session
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.signals import Stop
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.worker.registration import Registration
from reproq_listen.worker.worker import Databases, Worker
from tests.support.database import Database
from tests.support.executing import until
from tests.support.proxy import Proxy
from tests.support.services import running, settings_of_worker
from tests.support.workers import enqueue


def test_lost_reply_of_a_claim_hurries_the_heartbeat(database: Database) -> None:
    """Its tasks run nowhere. The database may return them after 20 s: a beat comes then, and not after its interval."""
    enqueue(database, "say", "x")

    async def scenario(proxy: Proxy) -> None:
        log = set_up(level=60)
        settings = settings_of_worker(dsn=proxy.dsn, lease=timedelta(seconds=300), heartbeat=timedelta(seconds=30))
        connections = [Connection(proxy.dsn, job, log, prepare_session) for job in Databases._fields]
        databases = Databases(*(Session(connection, None) for connection in connections))
        registration = Registration(WorkerQueries(databases.control), settings)
        manager = ServiceManager.adopt({}, log)
        worker = Worker(settings, databases, registration, Stop(), manager, 1024, log)
        await registration.enter()
        loop = asyncio.get_running_loop()
        async with running(worker._heartbeat.run()):
            await until(lambda: any(b"reproq_heartbeat" in sent for sent in proxy.statements), "the first beat")
            await asyncio.sleep(0.3)  # a beat that is answered after the claim hurries by itself
            assert worker._heartbeat._due > loop.time() + 25
            proxy.cut_reply_to = b"reproq_claim"
            await worker._claimer.take(1)
            assert proxy.cuts == 1
            assert worker._heartbeat._due < loop.time() + 21
        for connection in connections:
            await connection.close()

    with Proxy(database.dsn) as proxy:
        asyncio.run(scenario(proxy))
