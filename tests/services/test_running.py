"""The running tasks of a worker on a real database: what is not started is given back."""

from __future__ import annotations

import asyncio

import pytest

from reproq_listen.worker.executor import make_executor
from reproq_listen.worker.leases import Leases
from reproq_listen.worker.metadata_writer import MetadataWriter
from reproq_listen.worker.result_writer import ResultWriter
from reproq_listen.worker.running import RunningTasks
from tests.support.database import Database
from tests.support.services import AnswerBook, running, services
from tests.support.workers import enqueue, row


@pytest.mark.parametrize("how", ["start", "release"])
def test_task_that_comes_too_late_is_given_back(database: Database, how: str) -> None:
    """Its claim took most of the lease, or the worker stops: READY again, uncharged, and no process was started."""
    result_id = enqueue(database, "say", "x")

    async def scenario() -> None:
        async with services(database, executor="spawn") as worker:
            book = AnswerBook()
            leases = Leases(worker.settings.lease, worker.settings.grace, worker.log)
            results = ResultWriter(worker.queries, book.note, worker.log)
            metadata = MetadataWriter(worker.queries, worker.log)
            executor = make_executor(worker.settings, 1024, metadata.put, lambda: None, worker.log, lambda *_: None)
            tasks = RunningTasks(executor, worker.settings, leases, results, metadata, lambda: None, worker.log)
            (task,) = await worker.claim()
            age = 0.9 * worker.settings.lease.total_seconds() if how == "start" else 0.0
            sent_at = asyncio.get_running_loop().time() - age
            async with running(results.run()), asyncio.TaskGroup() as group:
                if how == "start":
                    tasks.start(task, sent_at, group)
                else:
                    tasks.release(task, sent_at)
                assert (len(tasks), tasks.is_idle) == (0, True)
                assert await results.flushed(5)
            assert book.of(task) == ["ok"]

    asyncio.run(scenario())
    found = row(database, result_id)
    assert (found["status"], found["attempts"], found["started_at"] is None) == ("READY", 0, False)
