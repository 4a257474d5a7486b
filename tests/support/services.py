"""Services of a worker on a real database, without the rest of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from msgspec import structs

from reproq_listen.config.settings import WorkerSettings, worker_settings
from reproq_listen.db.connection import CALL_LIMIT, Connection
from reproq_listen.db.database import Database as Session
from reproq_listen.db.database import prepare_session
from reproq_listen.db.worker_queries import ClaimRequest, WorkerQueries
from reproq_listen.logs.event_log import Log
from reproq_listen.logs.json_lines import set_up
from reproq_listen.model import ClaimedTask
from reproq_listen.worker.registration import Registration
from reproq_listen.worker.result_writer import Answers
from tests.support.database import Database

LEASE = timedelta(seconds=60)


@dataclass
class Services:
    """What a service of a worker needs: its calls, its registration, its settings, a log that says nothing."""

    queries: WorkerQueries
    registration: Registration
    settings: WorkerSettings
    log: Log

    async def claim(self, limit: int = 10) -> list[ClaimedTask]:
        """Claim as the worker does."""
        settings, incarnation = self.settings, self.registration.incarnation
        request = ClaimRequest(
            settings.worker_id, list(settings.queues), limit, settings.lease, settings.aging_factor, None, incarnation
        )
        return await self.queries.claim(request)


def settings_of_worker(**changes: Any) -> WorkerSettings:
    """Settings of a worker that was started with a DSN and no flags."""
    settings = worker_settings({"--dsn": "dbname=unused", "--worker-id": "w"}, {})
    return structs.replace(settings, **({"queues": ("default",), "lease": LEASE} | changes))


@asynccontextmanager
async def services(
    database: Database, *, dsn: str | None = None, limit: float = CALL_LIMIT, **changes: Any
) -> AsyncIterator[Services]:
    """A connection of its own and a registered worker; `changes` are settings.

    `dsn`: another way to the database. `limit`: seconds for a call.
    """
    log = set_up(level=60)
    session = Session(Connection(dsn or database.dsn, "test", log, prepare_session, limit), None)
    queries = WorkerQueries(session)
    settings = settings_of_worker(**changes)
    registration = Registration(queries, settings)
    try:
        await registration.enter()
        yield Services(queries, registration, settings, log)
    finally:
        await session.close()


@asynccontextmanager
async def running(service: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a service inside the block; an error of it fails the test."""
    task = asyncio.create_task(service)
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class AnswerBook:
    """Collects what the result writer hands on: each attempt's answers by its token."""

    def __init__(self) -> None:
        self.answers: dict[UUID, list[str]] = {}

    def note(self, answers: Answers) -> None:
        for result, answer in answers:
            self.answers.setdefault(result.task.lease_token, []).append(answer.answer)

    def of(self, task: ClaimedTask) -> list[str]:
        return self.answers.get(task.lease_token, [])
