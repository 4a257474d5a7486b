"""Requests of running tasks on a real database: one that waits for a row holds up no other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import psycopg

from reproq_listen.model import ClaimedTask
from reproq_listen.protocol.executor import NUMBER_BYTES
from reproq_listen.worker.task_requests import TaskRequests
from tests.support.database import Database
from tests.support.executing import until
from tests.support.services import running, services
from tests.support.workers import enqueue

NUMBER = b"1" * NUMBER_BYTES


def test_request_about_a_held_row_holds_up_no_other(database: Database) -> None:
    """Another session holds the row of one task: requests of others are answered, and that one once the row is free."""
    for _ in range(2):
        enqueue(database, "say", "x")

    async def scenario() -> None:
        async with services(database) as worker:
            requests = TaskRequests(worker.queries, None, timedelta(0), worker.log)
            held, free = await worker.claim()
            answers: dict[int, bytes] = {}

            def ask(task: ClaimedTask) -> None:
                requests.put(
                    task,
                    NUMBER + b'{"op": "step", "name": "charge", "value": 1}',
                    lambda reply: answers.update({task.result_id: reply}),
                )

            async with running(requests.run()):
                with psycopg.connect(database.dsn) as holder:
                    holder.execute("select from task_runs where result_id = %s for update", [held.result_id])
                    ask(held)
                    ask(free)
                    await until(lambda: list(answers) == [free.result_id], "the other is answered")
                await until(lambda: len(answers) == 2, "it is answered")
            assert set(answers.values()) == {NUMBER + b'{"value": null}'}

    asyncio.run(asyncio.wait_for(scenario(), 30))
