"""The running tasks of this process: started, stopped, and handed to the result writer when they end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask, Outcome, StopReason, TaskError
from reproq_listen.runtime.signals import Stop
from reproq_listen.worker.attempt_events import attempt_fields, log_ended
from reproq_listen.worker.attempt_logs import AttemptLogs
from reproq_listen.worker.leases import Lease, Leases
from reproq_listen.worker.metadata_writer import MetadataWriter
from reproq_listen.worker.result_writer import AttemptResult, ResultKind, ResultWriter, result_of

_LEASE_EXPIRED = Outcome(
    result=None,
    error=TaskError(
        kind="lease_expiry",
        message="the lease could not be renewed in time, so the attempt was stopped before its end",
    ),
)


class RunningTasks:
    """Owns the set of running tasks."""

    def __init__(
        self,
        executor: PerTaskExecutor | PoolExecutor,
        settings: WorkerSettings,
        leases: Leases,
        results: ResultWriter,
        metadata: MetadataWriter,
        on_end: Callable[[], None],
        log: Log,
    ) -> None:
        """`on_end` is called when a task has ended. A pool reports its free room itself. Raises SettingError."""
        self._executor = executor
        self._concurrency = settings.concurrency
        self._logs = None if settings.logs_dir is None else AttemptLogs(settings.logs_dir)
        self._leases = leases
        self._results = results
        self._metadata = metadata
        self._on_end = on_end
        self._log = log
        self._running: set[Lease] = set()
        self._concluding = 0  # ended, and not handed to the result writer yet
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._running)

    @property
    def slots_in_use(self) -> int:
        """The number of tasks that run. A pool may hold more, which wait for a child."""
        return self._executor.running if isinstance(self._executor, PoolExecutor) else len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether no task runs, and the result writer has the results of all that ran."""
        return not self._running and not self._concluding

    def claim_limit(self, incoming: int = 0) -> int:
        """How many tasks to claim now. `incoming`: the number of tasks that are claimed and not started yet.

        As many as can start at once; a pool also takes short tasks in advance.
        """
        if isinstance(self._executor, PoolExecutor):
            return self._executor.room(incoming)
        return self._concurrency - len(self._running) - incoming if self._executor.is_ready else 0

    def start(self, task: ClaimedTask, sent_at: float, group: asyncio.TaskGroup) -> None:
        """Run a task under its lease, in `group`. `sent_at`: monotonic time before its claim was sent."""
        lease = self._leases.add(task, sent_at)
        if self._leases.too_late(lease):
            self._release(lease)
            return
        self._running.add(lease)
        self._idle.clear()
        if isinstance(self._executor, PoolExecutor):
            has_readers = self._log.is_enabled_for(logging.DEBUG)
            lease.started(
                self._executor.submit(
                    task,
                    lambda outcome: self._pool_task_ended(lease, outcome, group),
                    partial(self._pool_task_started, task) if has_readers else None,
                )
            )
        else:
            group.create_task(self._execute(lease, self._executor), name=f"task {task.result_id}")

    def release(self, task: ClaimedTask, sent_at: float) -> None:
        """Give back a task that was claimed too late to be started: READY again, its attempt not charged."""
        self._release(self._leases.add(task, sent_at))

    def _release(self, lease: Lease) -> None:
        lease.ended()
        self._results.put(AttemptResult(lease.task, ResultKind.RELEASE))

    async def drain(self, seconds: float, stop: Stop) -> None:
        """Wait at most `seconds` until no task runs; then stop the rest, whose tasks are given back."""
        if self._running:
            self._log.info(Event.WORKER_DRAINING, running=len(self._running))
        await self._wait_until_idle(stop.killing, seconds)
        if self._running:
            self._log.warning(Event.WORKER_KILLING, running=len(self._running))
        for lease in list(self._running):  # one that has not started ends at once
            lease.stop(StopReason.SHUTDOWN)
        await self._wait_until_idle(stop.killing, None)
        for lease in list(self._running):
            lease.kill(StopReason.SHUTDOWN)

    async def _wait_until_idle(self, unless: asyncio.Event, seconds: float | None) -> None:
        waits = {
            asyncio.ensure_future(self._idle.wait()),
            asyncio.ensure_future(unless.wait()),
        }
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _execute(self, lease: Lease, executor: PerTaskExecutor) -> None:
        task = lease.task
        started_at = time.monotonic()
        try:
            attempt = await executor.start(task)
            lease.started(attempt)
            self._log.info(Event.TASK_STARTED, **attempt_fields(task), waited=task.waited)
            outcome = await attempt.wait()
        except Exception as error:  # noqa: BLE001 - the one edge: our fault in one attempt must not end the others
            outcome = Outcome(result=None, error=TaskError(kind="crashed", message=f"supervision failed: {error!r}"))
        finally:
            self._remove(lease)
        seconds = time.monotonic() - started_at
        if self._logs is not None or self._metadata.has_any_of(lease.task):
            self._on_end()  # its slot does not wait for what has to be written before the result
            await self._conclude(lease, outcome, seconds)
        else:
            self._store(lease, outcome, seconds)
            self._on_end()

    def _pool_task_started(self, task: ClaimedTask) -> None:
        self._log.debug(Event.TASK_STARTED, **attempt_fields(task), waited=task.waited)

    def _pool_task_ended(self, lease: Lease, outcome: Outcome, group: asyncio.TaskGroup) -> None:
        """Conclude at once; a task of its own is needed only when there are logs or metadata to write first."""
        self._remove(lease)
        seconds = outcome.usage.wall_seconds if outcome.usage is not None else 0.0
        if self._logs is not None or self._metadata.has_any_of(lease.task):
            group.create_task(self._conclude(lease, outcome, seconds))
        else:
            self._store(lease, outcome, seconds)

    def _remove(self, lease: Lease) -> None:
        lease.ended()
        self._running.discard(lease)
        self._concluding += 1
        if not self._running:
            self._idle.set()

    async def _conclude(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        """Write the output and the metadata of an attempt, then store its outcome."""
        if self._logs is not None:
            outcome = await self._logs.write(lease.task, outcome)
        await self._metadata.flush(lease.task)
        self._store(lease, outcome, seconds)

    def _store(self, lease: Lease, outcome: Outcome, seconds: float) -> None:
        """Hand the result of an attempt to the result writer."""
        log_ended(self._log, lease.task, outcome, seconds)
        kind = outcome.error.kind if outcome.error is not None else None
        self._concluding -= 1
        if lease.is_lost:
            self._on_end()
            return  # the task belongs to another attempt
        if kind == StopReason.SHUTDOWN.value:
            assert outcome.error is not None
            self._results.put(AttemptResult(lease.task, ResultKind.RELEASE, summary=outcome.error.message))
        elif kind == StopReason.LOST.value:
            self._results.put(result_of(lease.task, _LEASE_EXPIRED))
        else:
            self._results.put(result_of(lease.task, outcome))
