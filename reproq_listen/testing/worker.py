"""A worker in the process of a test: it runs what is due and ends, so that breakpoints and mocks work in tasks."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar
from uuid import UUID

from reproq_listen import __version__
from reproq_listen.child import runner
from reproq_listen.child.payload import Options
from reproq_listen.child.requests import Requests
from reproq_listen.db import testing_queries
from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database, prepare_session
from reproq_listen.db.dsn import conninfo
from reproq_listen.db.worker_queries import Answer, ClaimRequest, WorkerQueries
from reproq_listen.logs.event_log import Log
from reproq_listen.model import ClaimedTask, TaskError
from reproq_listen.protocol import allowlist
from reproq_listen.protocol.envelope import decode_envelope
from reproq_listen.protocol.executor import NUMBER_BYTES
from reproq_listen.worker.result_writer import AttemptResult, ResultWriter, result_of
from reproq_listen.worker.task_requests import TaskRequests

T = TypeVar("T")
LEASE = timedelta(hours=1)
NO_LIMIT = timedelta(days=1)
WORKER_ID = "reproq_worker"


@dataclass(frozen=True)
class FinishedAttempt:
    """One attempt that was run by `drain`."""

    __test__: ClassVar[bool] = False

    result_id: int
    task_path: str
    attempt: int
    answer: str
    """What became of the task: `ok` (it succeeded), `retry`, `failed`, or another answer of the database."""
    error: TaskError | None


class DrainingWorker:
    """Claims and runs tasks in the thread that calls `drain`, one after another; a thread of its own asks the database.

    The rules are those of every worker: the same SQL functions decide about order, limits, retries and results.
    There is no process: a task can be debugged and mocked, is not stopped by its timeout, and may leave traces in
    the process of the test.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=WORKER_ID, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._in_loop(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._in_loop(self._close())
        finally:
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def drain(
        self, queues: Sequence[str] | None = None, *, raise_errors: bool = False, max_attempts: int = 1000
    ) -> list[FinishedAttempt]:
        """Run what is due, and what comes due by that, until nothing is left to claim. All queues by default.

        `raise_errors`: the first error that a task raises is raised here, with its traceback, after it was stored.
        More than `max_attempts` attempts are taken for an endless loop of tasks that enqueue tasks: AssertionError.
        """
        finished: list[FinishedAttempt] = []
        while task := self._claim(queues):
            assert len(finished) < max_attempts, f"drain has run {max_attempts} attempts, and tasks are still due"
            errors: list[BaseException] = []
            finished.append(self._run(task, errors.append))
            if raise_errors and errors:
                raise errors[0]
        return finished

    async def drain_async(
        self, queues: Sequence[str] | None = None, *, raise_errors: bool = False, max_attempts: int = 1000
    ) -> list[FinishedAttempt]:
        """As `drain`, in a thread, for tests that are coroutines."""
        return await asyncio.to_thread(self.drain, queues, raise_errors=raise_errors, max_attempts=max_attempts)

    def _claim(self, queues: Sequence[str] | None) -> ClaimedTask | None:
        return self._in_loop(self._claim_one(queues))

    async def _claim_one(self, queues: Sequence[str] | None) -> ClaimedTask | None:
        if queues is None:
            queues = [row[0] for row in await self._database.rows(testing_queries.QUEUES)]
        if not queues:
            return None
        request = ClaimRequest(WORKER_ID, list(queues), 1, LEASE, 60.0, None, self._incarnation)
        claimed = await self._queries.claim(request)
        return claimed[0] if claimed else None

    def _run(self, task: ClaimedTask, on_error: Callable[[BaseException], None]) -> FinishedAttempt:
        arguments = ["--result-id", str(task.result_id), "--attempt", str(task.attempts), "--payload-json", task.spec]
        link = _Link(self, task)
        _, body = runner.run(Options(arguments), link, (allowlist.EVERYTHING,), on_error)
        outcome = decode_envelope(body)
        answer = self._in_loop(self._store(result_of(task, outcome)))
        return FinishedAttempt(task.result_id, task.task_path or "", task.attempts, answer.answer, outcome.error)

    async def _store(self, result: AttemptResult) -> Answer:
        self._answer = self._loop.create_future()
        self._writer.put(result)
        answer: Answer = await self._answer
        return answer

    def _answered(self, answers: Sequence[tuple[AttemptResult, Answer]]) -> None:
        for _, answer in answers:
            self._answer.set_result(answer)

    async def _open(self) -> None:
        log = Log(logging.getLogger("reproq_listen.testing"))
        self._database = Database(Connection(conninfo(self._dsn), "test", log, prepare_session), None)
        self._queries = WorkerQueries(self._database)
        self._incarnation: UUID = await self._queries.register(WORKER_ID, "test", 1, ["*"], __version__, ["*"])
        self._writer = ResultWriter(self._queries, self._answered, log)
        self._requests = TaskRequests(self._queries, None, NO_LIMIT, log)
        self._services = [asyncio.create_task(service.run()) for service in (self._writer, self._requests)]

    async def _close(self) -> None:
        for service in self._services:
            service.cancel()
            with suppress(asyncio.CancelledError):
                await service
        await self._queries.unregister(WORKER_ID, self._incarnation)
        await self._database.close()

    def _in_loop(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def save_metadata(self, task: ClaimedTask, body: bytes) -> None:
        """Store metadata of a running task at once."""
        self._in_loop(self._queries.save_metadata([task], [body.decode()]))

    def answer(self, task: ClaimedTask, request: bytes) -> bytes:
        """Answer a request of a running task."""
        reply: Future[bytes] = Future()
        self._loop.call_soon_threadsafe(self._requests.put, task, request, reply.set_result)
        return reply.result()


class _Link:
    """The way of a task to this worker: function calls."""

    def __init__(self, worker: DrainingWorker, task: ClaimedTask) -> None:
        self._worker = worker
        self._task = task

    def send_metadata(self, body: bytes) -> None:
        self._worker.save_metadata(self._task, body)

    def requests(self) -> Requests:
        return _DirectRequests(self._worker, self._task)


class _DirectRequests(Requests):
    """Requests whose replies come from a function."""

    def __init__(self, worker: DrainingWorker, task: ClaimedTask) -> None:
        self._reply = b""
        super().__init__(self._answer, -1)
        self._worker = worker
        self._task = task

    def _answer(self, request: bytes) -> None:
        self._reply = self._worker.answer(self._task, request)

    def _receive(self, number: bytes) -> bytes:
        return self._reply[NUMBER_BYTES:]
