"""The tasks that run in this process's care: started, watched, and handed over to the result writer when they end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta

from reproq_listen.db.worker_queries import Answer
from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask, Outcome, StopReason, TaskError
from reproq_listen.protocol.envelope import shorten
from reproq_listen.runtime.signals import Stop
from reproq_listen.worker.attempt_logs import TaskLogs
from reproq_listen.worker.leases import Lease, Leases
from reproq_listen.worker.metadata_writer import MetadataWriter
from reproq_listen.worker.result_writer import AttemptResult, ResultKind, ResultWriter, result_of

_MAX_LINES = 10  # for successes stored by one call
_MAX_OUTPUT = 2000  # bytes of a stream in the log

_EVENTS_BY_KIND = {
    "cancelled": Event.TASK_CANCELLED,
    "security_violation": Event.TASK_REJECTED,
    "invalid_spec": Event.TASK_INVALID,
    "invalid_result": Event.TASK_INVALID,
    "payload_too_large": Event.TASK_INVALID,
    "crashed": Event.TASK_INFRA_ERROR,
    "lease_expiry": Event.TASK_INFRA_ERROR,
}
_FENCED = Outcome(
    result=None,
    error=TaskError(
        kind="lease_expiry",
        message="the lease could not be renewed in time, so the attempt was stopped before its end",
    ),
)


class RunningTasks:
    """Owns `running`. `on_end` is called when a place is free again, or nothing is left to be waited for."""

    def __init__(
        self,
        executor: PerTaskExecutor | PoolExecutor,
        concurrency: int,
        leases: Leases,
        result_writer: ResultWriter,
        metadata_writer: MetadataWriter,
        on_end: Callable[[], None],
        log: Log,
        logs: TaskLogs | None = None,
    ) -> None:
        self._executor = executor
        self._concurrency = concurrency
        self._logs = logs
        self._leases = leases
        self._results = result_writer
        self._metadata = metadata_writer
        self._on_end = on_end
        self._log = log
        self._running: set[Lease] = set()
        self._concluding = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and the result writer has the ends of all that ran."""
        return not self._running and not self._concluding

    def room(self, coming: int = 0) -> int:
        """How many tasks to claim now: as many as can start, and with the pool what short tasks are worth.

        `coming`: so many are claimed, and not taken on yet.
        """
        if isinstance(self._executor, PoolExecutor):
            return self._executor.room(coming)
        return self._concurrency - len(self._running) - coming if self._executor.is_ready else 0

    def start(self, task: ClaimedTask, sent: float, group: asyncio.TaskGroup) -> None:
        """Run a task under its lease in `group`. `sent`: monotonic time before its claim was sent."""
        lease = self._leases.add(task, sent)
        if self._leases.too_late(lease):
            self._give_back(lease)
            return
        self._running.add(lease)
        self._idle.clear()
        if isinstance(self._executor, PoolExecutor):
            if self._log.is_enabled_for(logging.DEBUG):
                self._log.debug(Event.TASK_STARTED, **about(task), waited=task.waited)
            lease.started(self._executor.submit(task, lambda outcome: self._ended(lease, outcome, group)))
        else:
            group.create_task(self._execute(lease, self._executor), name=f"task {task.result_id}")

    def give_back(self, task: ClaimedTask, sent: float) -> None:
        """A task that came too late to be started: back to READY, its attempt not charged."""
        self._give_back(self._leases.add(task, sent))

    def _give_back(self, lease: Lease) -> None:
        lease.ended()
        self._results.put(AttemptResult(lease.task, ResultKind.RELEASE))

    async def drain(self, patience: timedelta, stop: Stop) -> None:
        """Wait for what runs, at most `patience`; then stop it, to be given back unharmed."""
        if self._running:
            self._log.info(Event.WORKER_DRAINING, running=len(self._running))
        await self._until_idle(stop.killing, patience.total_seconds())
        if self._running:
            self._log.warning(Event.WORKER_KILLING, running=len(self._running))
        for lease in list(self._running):  # one that has not started ends at once
            lease.stop(StopReason.SHUTDOWN)
        await self._until_idle(stop.killing, None)
        for lease in list(self._running):
            lease.kill(StopReason.SHUTDOWN)

    async def _until_idle(self, unless: asyncio.Event, seconds: float | None) -> None:
        waits = {
            asyncio.ensure_future(self._idle.wait()),
            asyncio.ensure_future(unless.wait()),
        }
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _execute(self, lease: Lease, executor: PerTaskExecutor) -> None:
        task = lease.task
        started = time.monotonic()
        try:
            attempt = await executor.start(task)
            lease.started(attempt)
            self._log.info(Event.TASK_STARTED, **about(task), waited=task.waited)
            outcome = await attempt.wait()
        except Exception as error:  # noqa: BLE001 - the one edge: our fault in one attempt must not end the others
            outcome = Outcome(result=None, error=TaskError(kind="crashed", message=f"supervision failed: {error!r}"))
        finally:
            self._let_go(lease)
            self._on_end()
        await self._conclude(lease, outcome, time.monotonic() - started)

    def _ended(self, lease: Lease, outcome: Outcome, group: asyncio.TaskGroup) -> None:
        """An attempt in the pool, which tells of its room itself, is over. Nothing is waited for here unless there is
        something to write."""
        self._let_go(lease)
        seconds = outcome.account.wall_seconds if outcome.account is not None else 0.0
        if self._logs is not None or self._metadata.has_some_of(lease.task):
            group.create_task(self._conclude(lease, outcome, seconds))
        else:
            self._report(lease, outcome, seconds)

    def _let_go(self, lease: Lease) -> None:
        lease.ended()
        self._running.discard(lease)
        self._concluding += 1
        if not self._running:
            self._idle.set()

    async def _conclude(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        """Keep what an attempt has left besides its outcome, then its outcome."""
        if self._logs is not None:
            outcome = await self._logs.keep(lease.task, outcome)
        await self._metadata.last(lease.task)
        self._report(lease, outcome, seconds)

    def _report(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        task = lease.task
        if self._log.is_enabled_for(logging.DEBUG):
            error = outcome.error
            self._log.debug(
                Event.TASK_ENDED,
                **about(task),
                seconds=seconds,
                kind=error.kind if error else None,
                crash_class=error.crash_class if error else None,
            )
        for warning in outcome.warnings:
            self._log.warning(Event.TASK_WARNING, **about(task), message=warning)
        if outcome.stdout is not None and outcome.stderr is not None and outcome.stdout.total + outcome.stderr.total:
            log_output(self._log, task, outcome)
        self._hand_over(lease, outcome)

    def _hand_over(self, lease: Lease, outcome: Outcome) -> None:
        """Decide what is stored of an attempt that has ended."""
        kind = outcome.error.kind if outcome.error is not None else None
        self._concluding -= 1
        if lease.lost:
            self._on_end()
            return  # whoever holds the task now answers for it
        if kind == StopReason.SHUTDOWN.value:
            self._results.put(AttemptResult(lease.task, ResultKind.RELEASE))
        elif kind == StopReason.LOST.value:
            self._results.put(result_of(lease.task, _FENCED))
        else:
            self._results.put(result_of(lease.task, outcome))


def log_output(log: Log, task: ClaimedTask, outcome: Outcome) -> None:
    """Say what a task has printed: beginning and end, and how much it was. A result is never among it."""
    stdout = None if outcome.is_result_on_stdout else outcome.stdout
    for stream, said in (("stdout", stdout), ("stderr", outcome.stderr)):
        if said is not None and said.total:
            text = shorten((said.head + said.tail).decode(errors="replace"), _MAX_OUTPUT)
            log.info(Event.TASK_OUTPUT, **about(task), stream=stream, bytes=said.total, text=text)


def log_settled(log: Log, settled: Sequence[tuple[AttemptResult, Answer]]) -> None:
    """Say what has become of attempts, now that the database has answered.

    Successes that come in crowds get one line together: a line for each would cost more than the tasks. Each is still
    told at level debug, for /events and metrics.
    """
    good = [result.task for result, answer in settled if result.kind is ResultKind.COMPLETE and answer.answer != "lost"]
    if len(good) > _MAX_LINES:
        log.info(Event.TASKS_SUCCEEDED, count=len(good), by_path=Counter(task.task_path for task in good))
        level = logging.DEBUG
    else:
        level = logging.INFO
    if len(good) == len(settled) and not log.is_enabled_for(level):
        return
    for result, answer in settled:
        _log_settled(log, result, answer, level)


def _log_settled(log: Log, result: AttemptResult, answer: Answer, success_level: int) -> None:
    fields = about(result.task)
    if answer.answer == "lost":
        log.warning(Event.LEASE_LOST, **fields)
    elif answer.answer == "cancelled":
        log.warning(Event.TASK_CANCELLED, **fields)
    elif result.kind is ResultKind.RELEASE:
        log.info(Event.TASK_RELEASED, **fields)
    elif result.kind is ResultKind.COMPLETE:
        say = log.info if success_level == logging.INFO else log.debug
        say(Event.TASK_SUCCESS, **fields)
    else:
        fields |= {"kind": result.error_kind, "error": result.summary}
        if answer.delay is not None:
            log.warning(Event.TASK_RETRY, **fields, retry_in=answer.delay)
        else:
            log.warning(_EVENTS_BY_KIND.get(result.error_kind, Event.TASK_FAILED), **fields)


def about(task: ClaimedTask) -> dict[str, object]:
    """The fields that tell an attempt apart in the log. Of the fence only a part: all of it is a capability."""
    return {
        "task_id": task.result_id,
        "queue": task.queue_name,
        "task_path": task.task_path,
        "attempt": task.attempts,
        "lease": str(task.lease_token)[:8],
    }
