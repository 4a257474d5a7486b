"""Runs a worker from its settings: makes its parts, opens its executor, registers it, and closes all in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from uuid import UUID

from msgspec import structs

from reproq_listen import __version__
from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.connection import CALL_LIMIT, Connection
from reproq_listen.db.contract import checking_contract
from reproq_listen.db.database import Database, prepare_session
from reproq_listen.db.dsn import conninfo, describe, secrets
from reproq_listen.db.session import contract_error, enter
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.errors import ExitCode, UnshareableImportsError
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.memory import log_memory
from reproq_listen.runtime.signals import Stop, on_hangup, on_signals
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.worker.executor import allow_open_files, executor_mode
from reproq_listen.worker.registration import Registration
from reproq_listen.worker.worker import Databases, Worker

_PORT_PAUSE = 10.0  # seconds until a port in use is tried again


def run_worker(settings: WorkerSettings, program: str, warnings: Sequence[str]) -> ExitCode:
    """Work until stopped or drained. `program`: our name in error texts; `warnings` are logged. Raises ReproqError."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if the parent left it ignored, exit statuses of children are lost
    with _on_database(settings) as settings_with_dsn:
        return asyncio.run(_run(settings_with_dsn, program, warnings))


@contextmanager
def _on_database(settings: WorkerSettings) -> Iterator[WorkerSettings]:
    """The settings with a DSN; with --embedded, that of a migrated server which runs inside this block."""
    if not settings.embedded:
        yield settings
        return
    # The optional extra; a worker without it does not load yoyo either.
    from reproq_listen.db.migrations import migrate
    from reproq_listen.embedded.server import EmbeddedServer, default_home

    with EmbeddedServer(default_home()) as server:
        migrate(server.dsn(), schema=settings.schema, report=lambda _: None)
        yield structs.replace(settings, dsn=server.dsn())


async def _run(settings: WorkerSettings, program: str, warnings: Sequence[str]) -> ExitCode:
    dsn = settings.dsn
    assert dsn is not None, "the embedded server has given its DSN"
    log = _log(settings, dsn)
    for warning in warnings:
        log.warning(Event.CONFIG_WARNING, message=warning)
    manager = ServiceManager.adopt(os.environ, log)
    stop = Stop()
    refusals: list[str] = []

    def contract_refused(reason: str) -> None:
        if not refusals:
            log.error(Event.CONTRACT_REFUSED, reason=reason)
            stop.draining.set()
        refusals.append(reason)

    async with AsyncExitStack() as stack:
        stack.enter_context(on_signals(stop))
        if settings.memory_log_interval is not None:
            stack.callback(asyncio.create_task(log_memory(settings.memory_log_interval, log)).cancel)
        databases, log = await _connections(settings, dsn, stack, log, contract_refused, program)
        registration = Registration(WorkerQueries(databases.control), settings)
        open_files = allow_open_files(settings, log)

        def make_worker(settings: WorkerSettings) -> Worker:
            worker = Worker(settings, databases, registration, stop, manager, open_files, log)
            stack.push_async_callback(worker.close)
            return worker

        opened = await _open(settings, make_worker, stop, program, log)
        if opened is None:
            return ExitCode.OK
        worker, settings = opened
        stack.enter_context(on_hangup(worker.reload, worker.reload_failed))
        incarnation = await enter(databases.control, registration.enter, stop, dsn, settings.schema, program, log)
        if incarnation is None:
            return ExitCode.OK
        _log_started(settings, incarnation, describe(dsn), worker.control_group, log)
        gc.freeze()  # objects of the start stay: the collector need not visit them again
        all_stored = await worker.run()
        log.info(Event.WORKER_STOPPED)
    if refusals:
        raise contract_error(refusals[0], dsn, settings.schema, program)
    return ExitCode.OK if all_stored else ExitCode.FAILURE


def _log(settings: WorkerSettings, dsn: str) -> Log:
    """The log of this process, which replaces the secrets of the settings."""
    hidden = secrets(dsn) | (secrets(settings.listen_dsn) if settings.listen_dsn else frozenset())
    if settings.http and settings.http.auth_token:
        hidden |= {settings.http.auth_token}
    log = set_up(hidden).bind(worker_id=settings.worker_id)
    return log.bind(process_role=settings.process_role) if settings.process_role else log


async def _connections(
    settings: WorkerSettings,
    dsn: str,
    stack: AsyncExitStack,
    log: Log,
    on_refusal: Callable[[str], None],
    program: str,
) -> tuple[Databases, Log]:
    """The worker's connections, opened when first needed, and the log of all that follows. They are closed, and HTTP is
    served if an address is given, until `stack` ends. `on_refusal`: see `checking_contract`. Raises SettingError."""
    target = conninfo(dsn)
    connections: list[Connection] = []
    if settings.http is not None:
        log = await _serve_http(settings, target, connections, stack, log, program)
    limit = min(CALL_LIMIT, settings.lease.total_seconds() / 4)
    prepare = checking_contract(prepare_session, settings.schema, on_refusal)
    connections += (Connection(target, job, log, prepare, limit) for job in Databases._fields)
    databases = Databases(*(Database(connection, settings.schema) for connection in connections))
    for database in databases:
        stack.push_async_callback(database.close)
    return databases, log


async def _serve_http(
    settings: WorkerSettings,
    target: str,
    connections: Sequence[Connection],
    stack: AsyncExitStack,
    log: Log,
    program: str,
) -> Log:
    """Serve metrics, probes and events until `stack` ends. Returns the log whose events they show.

    `connections`: read again for each request. As `reproq`, a port in use is waited for in the background: the Go
    program works without HTTP then, and several of its workers may have one METRICS_ADDR. Raises SettingError.
    """
    # Imported only when needed, for memory and start time.
    from reproq_listen.http.server import HttpServer, PortTakenError

    assert settings.http is not None
    server = HttpServer(settings.http, settings, target, connections, log)
    stack.push_async_callback(server.close)

    async def start_later() -> None:
        started = False
        while not started:
            await asyncio.sleep(_PORT_PAUSE)
            with suppress(PortTakenError):
                await server.start()
                started = True

    try:
        await server.start()
    except PortTakenError as error:
        if program != "reproq":
            raise
        log.warning(Event.CONFIG_WARNING, message=f"{error} The worker runs without HTTP until the port is free")
        stack.callback(asyncio.create_task(start_later()).cancel)
    return log.tapped(server.tap)


async def _open(
    settings: WorkerSettings, make_worker: Callable[[WorkerSettings], Worker], stop: Stop, program: str, log: Log
) -> tuple[Worker, WorkerSettings] | None:
    """Give an open worker and its settings, or None if it was stopped meanwhile. Raises ReproqError.

    Under the name of the Go program, which started each task cold, an application that cannot be forked is started so
    too, unless the settings name an executor.
    """
    worker = make_worker(settings)
    try:
        return (worker, settings) if await _open_unless_stopped(worker, stop) else None
    except UnshareableImportsError as error:
        if program != "reproq" or settings.executor is not None:
            raise
        log.warning(Event.EXECUTOR_WARNING, message=f"tasks run with --executor spawn: {error}")
    await worker.close()
    settings = structs.replace(settings, executor="spawn")
    worker = make_worker(settings)
    return (worker, settings) if await _open_unless_stopped(worker, stop) else None


async def _open_unless_stopped(worker: Worker, stop: Stop) -> bool:
    opening = asyncio.create_task(worker.open())
    stopping = asyncio.create_task(stop.draining.wait())
    await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    opening.cancel()  # has no effect if it is done
    try:
        await opening
    except asyncio.CancelledError:
        return False
    return True


def _log_started(settings: WorkerSettings, incarnation: UUID, database: str, control_group: str, log: Log) -> None:
    log.info(
        Event.WORKER_STARTED,
        version=__version__,
        incarnation=incarnation,
        database=database,
        pid=os.getpid(),
        queues=settings.queues,
        concurrency=settings.concurrency,
        executor=executor_mode(settings),
        control_group=control_group,
        lease_seconds=settings.lease,
        allowed_task_modules=settings.allowed_task_modules,
    )
