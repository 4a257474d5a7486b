"""The worker: looks for tasks when there may be some, has each run, and answers for them to the database.

Two nested task groups: services outside, executions inside. The inner one closes first, so that leases are renewed and
ends are stored for as long as a child lives. Nothing of value is lost with this process: the database knows the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.errors import CallError, DatabaseAway
from reproq_listen.db.listener import SAFETY_POLL, Listener
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.schedule_queries import Schedules
from reproq_listen.db.worker_queries import Answer, Database
from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.signals import Stop
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.runtime.wake_flag import WakeFlag, wait_for_event
from reproq_listen.scheduler.beat import Beat
from reproq_listen.worker.attempt_logs import TaskLogs
from reproq_listen.worker.claimer import Claimed, Claimer
from reproq_listen.worker.heartbeat import Heartbeat
from reproq_listen.worker.leases import Leases
from reproq_listen.worker.metadata_writer import MetadataWriter
from reproq_listen.worker.polling import PollBackoff
from reproq_listen.worker.reclaimer import Reclaimer
from reproq_listen.worker.result_writer import AttemptResult, ResultWriter
from reproq_listen.worker.running import RunningTasks, log_settled

_DRAIN_HORIZON = 60.0  # seconds: with --drain, a task due sooner is waited for
_NOT_ASKED = Claimed([], limit=1, sent=0.0)
_LISTEN_LIMIT = 5.0  # seconds to wait for LISTEN before the first claim
_STORE_LIMIT = 2.0  # seconds to store the last ends before exit
_LEAVE_LIMIT = 1.0  # seconds to leave the registry


class Worker:
    """One worker process on a database whose contract has been checked."""

    def __init__(
        self,
        settings: WorkerSettings,
        incarnation: UUID,
        control: Database,
        finish: Database,
        lease: Database,
        listen_conninfo: str,
        executor: PerTaskExecutor | PoolExecutor,
        metadata_writer: MetadataWriter,
        logs: TaskLogs | None,
        stop: Stop,
        manager: ServiceManager,
        log: Log,
    ) -> None:
        self._settings = settings
        self._incarnation = incarnation
        self._control = control
        self._stop = stop
        self._manager = manager
        self._log = log
        self._claimer = Claimer(control, settings, incarnation, stop.draining, self._claim_failed, log)
        self._saturated = False  # the last claim was full: there may be more
        self._wake = WakeFlag()
        self._backoff = PollBackoff(settings.poll_min_backoff, settings.poll_max_backoff)
        self._leases = Leases(settings.lease, settings.grace, log)
        self._heartbeat = Heartbeat(lease, settings.worker_id, incarnation, self._leases, settings.heartbeat, log)
        self._beat = None if settings.beat is None else Beat(Schedules(control), settings.beat, log)
        self._listener = Listener(
            listen_conninfo,
            settings.queues,
            self._wake,
            self._heartbeat.cancel_requested,
            log,
            self._ring_beat,
            settings.schema,
        )
        self._results = ResultWriter(finish, self._settled, log)
        self._reclaimer = Reclaimer(control, settings.reclaim_interval, self._wake.notify, log)
        self._metadata = metadata_writer
        self._running_tasks = RunningTasks(
            executor, settings.concurrency, self._leases, self._results, metadata_writer, self._task_ended, log, logs
        )
        executor.on_room = self._task_ended

    async def run(self) -> bool:
        """Work until told to stop, or drained. True if every end was stored."""
        services = (self._listener, self._heartbeat, self._results, self._metadata, self._reclaimer)
        async with asyncio.TaskGroup() as outer:
            running = [outer.create_task(service.run()) for service in services]
            running.append(outer.create_task(self._ring_on_stop()))
            if self._beat is not None:
                running.append(outer.create_task(self._beat.run()))
            async with asyncio.TaskGroup() as inner:
                await self._claim_until_told(inner)
                if self._claimer.is_under_way:
                    await self._claim(inner, 0)  # it comes too late: all is given back
                self._manager.stopping(self._status())
                running.append(outer.create_task(self._stay_alive()))
                enough = asyncio.get_running_loop().time() + self._settings.shutdown_timeout.total_seconds()
                await self._running_tasks.drain(self._settings.shutdown_timeout, self._stop)
            stored = await self._store_the_last(enough)
            for task in running:
                task.cancel()
        if stored:
            await self._leave()
        else:
            self._log.error(Event.RESULTS_LOST, count=len(self._results))
        return stored

    async def _leave(self) -> None:
        """Leave the registry. Without the database the row stays, and counts as alive for five minutes."""
        with suppress(CallError, TimeoutError):
            async with asyncio.timeout(_LEAVE_LIMIT):
                await self._control.unregister(self._settings.worker_id, self._incarnation)

    async def _claim_until_told(self, group: asyncio.TaskGroup) -> None:
        """Clear, claim, if full claim again, else sleep until wake flag, timer or poll."""
        await wait_for_event(self._listener.tried, _LISTEN_LIMIT)
        look, due = True, False
        while not self._stop.draining.is_set():
            self._log.debug(Event.CLAIM_LOOP)
            self._manager.alive(self._status)
            self._wake.clear()
            free = self._running_tasks.room()
            if not free and not self._claimer.is_under_way:
                self._saturated = True
                if self._settings.drain and self._is_idle() and self._is_drained(await self._next_wake()):
                    return
                await self._rest(SAFETY_POLL)  # the end of a task rings
                await self._probe_listener()
                look = True
                continue
            claimed = await self._claim(group, free) if look else _NOT_ASKED
            self._saturated = claimed.is_full
            if self._saturated:
                await self._probe_listener()
                continue
            if due and not claimed.tasks:
                self._reclaimer.ask()  # what fell due may be the lease of a dead worker
            is_idle = self._is_idle()
            wake = await self._next_wake()
            if self._settings.drain and is_idle and self._is_drained(wake):
                return
            look, due = await self._sleep(wake, looked=look)

    def _is_idle(self) -> bool:
        return self._running_tasks.is_idle and not len(self._results)

    def _is_drained(self, wake: float | None) -> bool:
        return wake is None or wake > _DRAIN_HORIZON

    async def _sleep(self, wake: float | None, *, looked: bool) -> tuple[bool, bool]:
        """Sleep as long as is right. Gives whether to claim next, and whether that is because something fell due."""
        if wake is not None and wake <= 0 and not looked:
            return True, False
        pause = self._backoff.pause(wake, verified=self._listener.verified)
        rang = await self._rest(pause)
        due = not rang and wake is not None and wake <= pause
        return rang or due, due

    async def _claim(self, group: asyncio.TaskGroup, free: int) -> Claimed:
        """Take tasks on. While they are dealt out the next claim may be on its way, if there are more and room."""
        claimed = await self._claimer.take(free)
        self._manager.ready(self._status())
        if claimed.tasks:
            self._backoff.worked()
        is_over = self._stop.draining.is_set()
        more = self._running_tasks.room(len(claimed.tasks)) if claimed.is_full and not is_over else 0
        if more:
            self._claimer.prefetch(more, group)
        for task in claimed.tasks:
            if is_over:
                self._running_tasks.give_back(task, claimed.sent)
            else:
                self._running_tasks.start(task, claimed.sent, group)
        return claimed

    def _claim_failed(self, error: CallError) -> None:
        self._manager.alive(self._status)
        if isinstance(error, DatabaseAway):
            self._heartbeat.claim_reply_lost()

    async def _probe_listener(self) -> None:
        """Send the canary when it is due, although nobody asks for the next wake: the busy must hear cancels, too."""
        if self._listener.canary_is_due():
            await self._next_wake()

    async def _next_wake(self) -> float | None:
        canary = self._listener.canary()
        try:
            return await retry_until_answered(
                lambda: self._control.next_wake(self._settings.queues, canary),
                self._log,
                give_up=self._stop.draining,
                on_error=self._wake_failed,
            )
        except CallError:
            return None  # told to stop while the database was away

    def _wake_failed(self, _error: CallError) -> None:
        self._manager.alive(self._status)
        self._listener.canary_not_sent()

    async def _rest(self, seconds: float) -> bool:
        """Wait for the wake flag, showing signs of life. True if it rang."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            left = until - loop.time()
            rang = await self._wake.wait(max(0.0, min(left, self._manager.pause)))
            if rang or left <= self._manager.pause:
                return rang
            self._manager.alive(self._status)

    async def _stay_alive(self) -> None:
        """Show signs of life while the last tasks end; how long that may take is the service manager's to say."""
        while True:
            self._manager.alive(self._status)
            await asyncio.sleep(self._manager.pause)

    def _status(self) -> str:
        doing = "stopping" if self._stop.draining.is_set() else "working"
        ears = "listening" if self._listener.verified else "polling"
        return f"{doing}, {ears}, {len(self._running_tasks)} of {self._settings.concurrency} places taken"

    def _task_ended(self) -> None:
        if (self._saturated or self._settings.drain) and self._running_tasks.room():
            self._wake.notify()

    def _settled(self, settled: Sequence[tuple[AttemptResult, Answer]]) -> None:
        for result, _ in settled:
            self._leases.drop(result.task)
        log_settled(self._log, settled)
        # What these ends set free (a key, a chain's next step) rings; without a listener, look.
        if self._settings.drain or not self._listener.verified:
            self._wake.notify()

    async def _store_the_last(self, enough: float) -> bool:
        """Wait for the result writer as long as the shutdown may take, and a little longer. True if all is stored."""
        while len(self._results) and not self._stop.killing.is_set():
            left = enough - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await self._results.flushed(min(left, _STORE_LIMIT))
        return await self._results.flushed(_STORE_LIMIT)

    def _ring_beat(self) -> None:
        if self._beat is not None:
            self._beat.notify()

    async def _ring_on_stop(self) -> None:
        await self._stop.draining.wait()
        self._log.debug(Event.STOP_ASKED)
        self._wake.notify()
