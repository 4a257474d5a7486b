"""The worker: claims tasks when there may be some, runs each, and stores its result.

Two nested task groups: services outside, executions inside. The inner one closes first, so leases are renewed and
results are stored as long as a child lives. This process holds nothing durable: the database has the rest.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.database import Database
from reproq_listen.db.dsn import conninfo
from reproq_listen.db.errors import CallError, DatabaseAway
from reproq_listen.db.listener import SAFETY_POLL, Listener
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.schedule_queries import Schedules
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.signals import Stop
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.runtime.wake_flag import WakeFlag, wait_for_event
from reproq_listen.scheduler.beat import Beat
from reproq_listen.worker import release_leases
from reproq_listen.worker.attempt_events import log_answers
from reproq_listen.worker.claimer import Claimed, Claimer
from reproq_listen.worker.completion_claims import CompletionClaims
from reproq_listen.worker.executor import make_executor
from reproq_listen.worker.heartbeat import Heartbeat
from reproq_listen.worker.leases import Leases
from reproq_listen.worker.metadata_writer import MetadataWriter
from reproq_listen.worker.polling import FULL, QUICK_POLL, PollBackoff, QuickPolls
from reproq_listen.worker.reclaimer import Reclaimer
from reproq_listen.worker.registration import Registration
from reproq_listen.worker.release_leases import LostWorker
from reproq_listen.worker.result_writer import Answers, ResultWriter
from reproq_listen.worker.running import RunningTasks
from reproq_listen.worker.task_requests import TaskRequests

_DRAIN_HORIZON = 60.0  # seconds: --drain waits for a task that is due earlier
_NO_CLAIM = Claimed([], limit=1, sent_at=0.0)
_MAX_FRUITLESS = 5  # claims in a row that a notification caused and that found nothing; then they have pauses
_LISTEN_LIMIT = 5.0  # seconds to wait for LISTEN before the first claim
_STORE_LIMIT = 2.0  # seconds to store the last results before exit


class Databases(NamedTuple):
    """The database on one connection for each job, so that no job waits for another."""

    control: Database
    finish: Database
    lease: Database


class Worker:
    """One worker process, on a database whose contract is checked before `run`."""

    def __init__(
        self,
        settings: WorkerSettings,
        databases: Databases,
        registration: Registration,
        stop: Stop,
        manager: ServiceManager,
        open_files: int,
        log: Log,
    ) -> None:
        """`open_files`: the limit for processes of tasks. Raises SettingError if a setting cannot be used on this
        machine."""
        self._settings = settings
        self._registration = registration
        self._stop = stop
        self._manager = manager
        self._log = log
        self._control = control = WorkerQueries(databases.control)
        self._claimer = Claimer(control, settings, registration, stop.draining, self._claim_failed, log)
        self._group: asyncio.TaskGroup | None = None  # of the tasks that run
        self._wake = WakeFlag()
        self._fruitless = 0
        self._completion_claims = CompletionClaims(
            self._claimer,
            max_slots=settings.concurrency,
            free_slots=self._free_slots,
            start=self._start,
            on_error=self._claim_failed,
            stopping=stop.draining,
            wake=self._wake,
        )
        self._backoff = PollBackoff(settings.poll_min_backoff, settings.poll_max_backoff)
        self._leases = Leases(settings.lease, settings.grace, log)
        self._heartbeat = Heartbeat(WorkerQueries(databases.lease), settings, registration, self._leases, log)
        self._beat = None if settings.beat is None else Beat(Schedules(databases.control), settings.beat, log)
        self._listener = Listener(
            _listen_conninfo(settings),
            log,
            schema=settings.schema,
            is_for_listen=settings.listen_dsn is not None,
            queues=settings.queues,
            on_ready=self._notified,
            on_cancel=self._heartbeat.cancel_requested,
            on_schedule=self._schedule_changed,
        )
        self._quick_polls = QuickPolls(self._listener.want_no_notifications, self._listener.want_notifications)
        self._results = ResultWriter(
            *(WorkerQueries(databases.finish), self._results_answered, log),
            next_claim=self._completion_claims.request,
            on_claimed=self._completion_claims.answered,
        )
        self._reclaimer = Reclaimer(control, settings.reclaim_interval, self._wake.notify, log)
        self._metadata = MetadataWriter(control, log)
        self._requests = TaskRequests(control, settings.schema, settings.exec_timeout, log)
        self._executor = make_executor(
            settings, open_files, self._metadata.put, self._slot_freed, log, self._requests.put
        )
        self._running = RunningTasks(
            self._executor, settings, self._leases, self._results, self._metadata, self._slot_freed, log
        )

    @property
    def control_group(self) -> str:
        """The control group that holds all processes of tasks, or `none` and the reason."""
        return self._executor.control_group

    async def open(self) -> None:
        """Open the executor; with fork and pool this imports the application. Raises ReproqError."""
        await self._executor.open()

    async def reload(self) -> None:
        """Run tasks that start from now on with the code as it is now."""
        await self._executor.reload()
        self._log.info(Event.CODE_RELOADED)

    def reload_failed(self, error: Exception) -> None:
        """An unexpected error: tasks run on with the code that there is."""
        self._log.error(Event.EXECUTOR_WARNING, message=f"the code could not be reloaded: {error!r}")

    async def close(self) -> None:
        """End all processes of tasks."""
        await self._executor.close()

    async def run(self) -> bool:
        """Work until stopped or drained. True if every result was stored."""
        services = (self._listener, self._heartbeat, self._results, self._metadata, self._requests, self._reclaimer)
        async with asyncio.TaskGroup() as outer:
            running = [outer.create_task(service.run()) for service in services]
            running.append(outer.create_task(self._wake_on_stop()))
            if self._beat is not None:
                running.append(outer.create_task(self._beat.run()))
            async with asyncio.TaskGroup() as inner:
                self._group = inner
                await self._claim_until_stopped(inner)
                if self._claimer.has_prefetched:
                    await self._claim(inner, 0)  # its tasks come too late and are released
                self._manager.stopping(self._status())
                running.append(outer.create_task(self._report_alive()))
                shutdown_seconds = self._settings.shutdown_timeout.total_seconds()
                deadline = asyncio.get_running_loop().time() + shutdown_seconds
                await self._running.drain(shutdown_seconds, self._stop)
            all_stored = await self._store_last_results(deadline)
            for task in running:
                task.cancel()
        if all_stored:
            await self._registration.leave()
        else:
            self._log.error(Event.RESULTS_LOST, count=len(self._results))
        return all_stored

    async def _claim_until_stopped(self, group: asyncio.TaskGroup) -> None:
        """Clear the wake flag and claim; after a full claim claim again, else wait for flag, timer or poll."""
        await wait_for_event(self._listener.tried, _LISTEN_LIMIT)
        must_claim, is_due = True, False
        while not self._stop.draining.is_set():
            self._log.debug(Event.CLAIM_LOOP)
            self._manager.alive(self._status)
            self._wake.clear()
            limit = self._free_slots()
            if limit <= 0 and not self._claimer.has_prefetched:
                self._completion_claims.is_saturated = True
                if self._settings.drain and self._is_idle() and self._is_drained(await self._next_wake()):
                    return
                if not await self._rest(FULL):
                    self._quick_polls.full()
                    await self._rest(SAFETY_POLL)  # the end of a task notifies
                await self._probe_listener()
                must_claim = True
                continue
            claimed = await self._claim(group, limit) if must_claim else _NO_CLAIM
            self._fruitless = 0 if claimed.tasks else self._fruitless + must_claim
            self._completion_claims.is_saturated = claimed.is_full
            self._quick_polls.claimed(len(claimed.tasks), is_full=claimed.is_full)
            if self._quick_polls.on and not claimed.is_full:
                self._fruitless = 0  # no notification has caused this claim
                await self._probe_listener()
                await self._rest(QUICK_POLL)
                must_claim = True
                continue
            if self._completion_claims.is_saturated:
                await self._probe_listener()
                continue
            if is_due and not claimed.tasks:
                self._reclaimer.request()  # the expired lease of a dead worker may be what was due
            is_idle = self._is_idle()
            next_wake = claimed.full_look_in or await self._next_wake(claimed)
            if self._settings.drain and is_idle and await self._stays_drained(next_wake):
                return
            must_claim, is_due = await self._wait(next_wake, claimed=must_claim)

    def _is_idle(self) -> bool:
        return self._running.is_idle and not len(self._results)

    def _is_drained(self, next_wake: float | None) -> bool:
        return next_wake is None or next_wake > _DRAIN_HORIZON

    async def _stays_drained(self, next_wake: float | None) -> bool:
        """Ask again: when the claim looked, the last task may not have ended, and another waited for its end."""
        return self._is_drained(next_wake) and self._is_drained(await self._next_wake())

    async def _wait(self, next_wake: float | None, *, claimed: bool) -> tuple[bool, bool]:
        """Wait for flag, timer or poll. Returns whether to claim next, and whether that is because a task is due."""
        if next_wake is not None and next_wake <= 0 and not claimed:
            return True, False
        pause = self._backoff.pause(next_wake, is_listening=self._listener.verified)
        loop = asyncio.get_running_loop()
        began = loop.time()
        is_notified = await self._rest(pause)
        if self._listener.verified:
            self._quick_polls.waited(loop.time() - began, is_notified=is_notified)
        if is_notified and self._fruitless > _MAX_FRUITLESS:  # any role may NOTIFY
            await wait_for_event(self._stop.draining, self._settings.poll_min_backoff.total_seconds())
        is_due = not is_notified and next_wake is not None and next_wake <= pause
        return is_notified or is_due, is_due

    async def _claim(self, group: asyncio.TaskGroup, limit: int) -> Claimed:
        """Claim and start tasks. If there may be more, and room for them, prefetch the next claim before the start."""
        claimed = await self._claimer.take(limit)
        self._manager.ready(self._status())
        if claimed.tasks:
            self._backoff.reset()
        is_stopping = self._stop.draining.is_set()
        coming = len(claimed.tasks) + self._claimer.requested
        more = self._running.claim_limit(coming) if claimed.is_full and not is_stopping else 0
        if more > 0:
            self._claimer.prefetch(more, group)
        self._start(claimed)
        return claimed

    def _start(self, claimed: Claimed) -> None:
        assert self._group is not None
        is_stopping = self._stop.draining.is_set()
        for task in claimed.tasks:
            if is_stopping:
                self._running.release(task, claimed.sent_at)
            else:
                self._running.start(task, claimed.sent_at, self._group)

    def _claim_failed(self, error: CallError) -> None:
        self._manager.alive(self._status)
        if isinstance(error, DatabaseAway):
            self._heartbeat.claim_reply_lost()

    async def _probe_listener(self) -> None:
        """Send the canary when it is due: a worker that never asks for the next wake must still receive cancels."""
        if self._listener.canary_is_due():
            await self._next_wake()

    async def _next_wake(self, claimed: Claimed = _NO_CLAIM) -> float | None:
        """Seconds until a claim can find something; asked for if the claim did not come with it."""
        if self._stop.draining.is_set():
            return None  # the answer has no use any more, and may take long
        canary = self._listener.canary()
        if canary is None and claimed.next_wake is not None:
            return claimed.next_wake.seconds
        try:
            next_wake = await retry_until_answered(
                lambda: self._control.next_wake(self._settings.queues, canary),
                self._log,
                give_up=self._stop.draining,
                on_error=self._next_wake_failed,
            )
        except CallError:
            return None  # stopped while the database was away
        if canary is not None:
            self._listener.canary_sent()
        return next_wake

    def _next_wake_failed(self, _error: CallError) -> None:
        self._manager.alive(self._status)
        self._listener.canary_not_sent()

    async def _rest(self, seconds: float) -> bool:
        """Wait for the wake flag, and report meanwhile that this process is alive. True if the flag was set."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while True:
            left = until - loop.time()
            is_notified = await self._wake.wait(max(0.0, min(left, self._manager.pause)))
            if is_notified or left <= self._manager.pause:
                return is_notified
            self._manager.alive(self._status)

    async def _report_alive(self) -> None:
        """Report to the service manager while the last tasks end; the manager limits how long that may take."""
        while True:
            self._manager.alive(self._status)
            await asyncio.sleep(self._manager.pause)

    def _status(self) -> str:
        state = "stopping" if self._stop.draining.is_set() else "working"
        wakeup = "listening" if self._listener.verified else "polling"
        return f"{state}, {wakeup}, {self._running.slots_in_use} of {self._settings.concurrency} slots in use"

    def _free_slots(self) -> int:
        return self._running.claim_limit(self._claimer.requested)

    def _slot_freed(self) -> None:
        if not (self._completion_claims.is_saturated or self._settings.drain) or self._free_slots() <= 0:
            return
        if self._results.ends_with_success and self._completion_claims.is_wanted:
            self._completion_claims.slot_freed()
        else:
            self._wake.notify()

    def _notified(self) -> None:
        """Tasks may be claimable. Quick polls find them as well."""
        if not self._quick_polls.on:
            self._wake.notify()

    def _results_answered(self, answers: Answers) -> None:
        for result, _ in answers:
            self._leases.drop(result.task)
        log_answers(self._log, answers)
        # Tasks that these results made claimable (a key, the next step of a chain) notify; without LISTEN, claim.
        if self._settings.drain or not self._listener.verified:
            self._wake.notify()

    async def _store_last_results(self, deadline: float) -> bool:
        """Wait for the result writer until the shutdown timeout is over, and a little longer. True if all is stored."""
        while len(self._results) and not self._stop.killing.is_set():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await self._results.flushed(min(left, _STORE_LIMIT))
        return await self._results.flushed(_STORE_LIMIT)

    def _schedule_changed(self) -> None:
        if self._beat is not None:
            self._beat.notify()

    async def _wake_on_stop(self) -> None:
        """On a stop, wake the claim loop. Who stops a worker may kill it a moment later: its guard then releases."""
        await self._stop.draining.wait()
        settings = self._settings
        assert settings.dsn is not None, "the embedded server has given its DSN"
        lost = LostWorker(settings.dsn, settings.schema, settings.worker_id, self._registration.incarnation)
        self._executor.run_if_killed(release_leases.MODULE, msgspec.json.encode(lost))
        self._log.debug(Event.STOP_ASKED)
        self._wake.notify()


def _listen_conninfo(settings: WorkerSettings) -> str:
    if settings.listen_dsn is not None:
        return conninfo(settings.listen_dsn, "--listen-dsn")
    assert settings.dsn is not None, "the embedded server has given its DSN"
    return conninfo(settings.dsn)
