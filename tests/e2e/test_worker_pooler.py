"""Workers and clients behind a transaction pooler: they leave nothing in sessions that other applications use next."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from reproq_listen import AsyncClient, Client
from tests.apps import client_tasks as app
from tests.e2e.test_doctor import findings, of
from tests.support.database import Database
from tests.support.pooler import Pooler
from tests.support.workers import WorkerProcess, enqueue, wait_for_status


def prepared(pooler: Pooler) -> list[str]:
    with psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) as connection:
        return [row[0] for row in connection.execute("select statement from pg_prepared_statements")]


def test_worker_behind_a_pooler_polls_and_leaves_nothing_in_its_sessions(database: Database) -> None:
    """No LISTEN, which would send other applications our notifications, and no prepared statement."""
    with Pooler(database.dsn) as pooler, WorkerProcess(pooler.dsn, "--poll-max-backoff", "200ms") as worker:
        worker.wait_for("listener_down")
        for number in range(3):
            wait_for_status(database, enqueue(database, "add", 1, number), "SUCCESSFUL")
        assert (pooler.listening(), prepared(pooler)) == ([], [])
        assert [line["remedy"] for line in worker.logged("listener_down")] == [
            "let --listen-dsn reach the same database without a transaction pooler"
        ]


def test_worker_behind_a_pooler_listens_where_it_is_told_to(database: Database) -> None:
    """With a direct --listen-dsn it is woken."""
    with Pooler(database.dsn) as pooler, WorkerProcess(pooler.dsn, "--listen-dsn", database.dsn).ready():
        result_id = enqueue(database, "add", 1, 1)
        wait_for_status(database, result_id, "SUCCESSFUL")
        assert (pooler.listening(), prepared(pooler)) == ([], [])


def test_doctor_behind_a_pooler_does_not_listen_there(database: Database) -> None:
    """It names the remedy; an address that --listen-dsn names is tried."""
    with Pooler(database.dsn) as pooler:
        assert "--listen-dsn" in of("listen", findings(pooler.dsn)).remedy
        assert pooler.listening() == []


@pytest.mark.parametrize("is_async", [False, True])
def test_wait_behind_a_pooler_looks_and_does_not_listen(database: Database, *, is_async: bool) -> None:
    """The end of a task is found within about a second, and no session of the pool listens then or later."""

    def end_soon(result_id: int) -> threading.Timer:
        return threading.Timer(0.5, lambda: end(database, result_id))

    async def wait_async(dsn: str) -> tuple[list[str], object]:
        async with AsyncClient(dsn) as client:
            result = await client.enqueue(app.send_welcome, 1)
            end_soon(result.id).start()
            waiting = asyncio.create_task(result.wait(20))
            await asyncio.sleep(0.3)
            heard = await asyncio.to_thread(pooler.listening)
            return heard, await waiting

    def wait(dsn: str) -> tuple[list[str], object]:
        with Client(dsn) as client, ThreadPoolExecutor() as threads:
            result = client.enqueue(app.send_welcome, 1)
            end_soon(result.id).start()
            waiting = threads.submit(result.wait, 20)
            time.sleep(0.3)
            return pooler.listening(), waiting.result()

    with Pooler(database.dsn) as pooler:
        began = time.monotonic()
        assert (asyncio.run(wait_async(pooler.dsn)) if is_async else wait(pooler.dsn)) == ([], "welcome")
        assert time.monotonic() - began < 4
        assert pooler.listening() == []


def end(database: Database, result_id: int) -> None:
    """Claim the task, and complete it."""
    with database.connect() as connection:
        connection.execute(
            "select from reproq_claim('w', '{mail}', 1, interval '1 minute') c,"
            " reproq_complete(array[%s::bigint], array[c.lease_token], array['\"welcome\"'::jsonb])",
            [result_id],
        )
