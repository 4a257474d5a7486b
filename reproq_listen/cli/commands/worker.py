"""`reproq-listen worker`: makes the parts, checks what must be there, and runs the worker until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from uuid import UUID

from msgspec import structs

from reproq_listen import __version__
from reproq_listen.cli.session import START_LIMIT, contract_refused, enter
from reproq_listen.config import settings as config
from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db import dsn as dsns
from reproq_listen.db.connection import CALL_LIMIT, Connection
from reproq_listen.db.contract import checking_contract
from reproq_listen.db.worker_queries import Database, prepare_session
from reproq_listen.errors import ExitCode, SettingError
from reproq_listen.executors.per_task.executor import Noted, PerTaskExecutor
from reproq_listen.executors.per_task.fork import can_fork, fork_executor
from reproq_listen.executors.per_task.spawn import spawn_executor
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.executors.process.limits import raise_open_files
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.logs.json_lines import set_up
from reproq_listen.model import ExecutorSettings
from reproq_listen.runtime.memory import log_memory
from reproq_listen.runtime.signals import Stop, on_hangup, on_signals
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.worker.attempt_logs import TaskLogs
from reproq_listen.worker.leases import effective_grace
from reproq_listen.worker.metadata_writer import MetadataWriter
from reproq_listen.worker.worker import Worker

_JOBS = ("control", "finish", "lease")  # one connection each, opened when first needed: no job waits for another
_PAGES_LIMIT = 5.0  # seconds for what pages ask of the database
_FILES = 64  # open files of a worker that runs nothing, and some to spare
_FILES_PER_TASK = 8  # pipes and the like to a child

USAGE = """
Run tasks until told to stop. Flags go before environment variables, those before the configuration file, and that
before the defaults in brackets.

Usage:
  {program} worker [options]

Database:
  --dsn DSN                        postgresql://user@host/db or key=value pairs, one or several hosts (DATABASE_URL).
  --listen-dsn DSN                 Where to LISTEN, when --dsn goes through a transaction pooler (as --dsn).
  --schema NAME                    The schema that holds reproq's functions (the search path finds it).
  --embedded                       Start an embedded PostgreSQL, migrate it and work on it.

What to run:
  --queues LIST                    Queues, separated by commas (QUEUE_NAMES; default).
  --concurrency N                  Tasks at a time, 1 to 1000 (10).
  --allowed-task-modules LIST      Modules whose tasks may run; * allows all, for development only
                                   (ALLOWED_TASK_MODULES; myapp.tasks.,tasks.).
  --priority-aging-factor SECONDS  Waiting so long weighs as much as one step of priority; 0 = off
                                   (PRIORITY_AGING_FACTOR; 60).
  --beat                           Also enqueue what schedules say, as reproq-listen beat does.
  --drain                          End when nothing runs and nothing is claimable or due within 60 s.

How to run it:
  --python-bin PATH                The Python of the tasks (the one that runs this program).
  --executor-module MODULE         What `python -m` starts for each task (reproq_listen.executor; under the
                                   name reproq: reproq_django.executor).
  --executor MODE                  spawn: a cold Python for every task; fork: a fresh copy of a warm one that has
                                   imported the application; pool: warm ones that run many tasks each
                                   (REPROQ_EXECUTOR; fork on Linux, else spawn).
  --preload LIST                   Modules that fork and pool import once, before the first task, beside a
                                   Django project that DJANGO_SETTINGS_MODULE names (REPROQ_PRELOAD).
  --max-tasks-per-child N          pool: replace a child after so many tasks; 0 = never
                                   (REPROQ_MAX_TASKS_PER_CHILD; 0).
  --max-memory-per-child SIZE      pool: replace a child that holds more between tasks, such as 512M; 0 = never
                                   (REPROQ_MAX_MEMORY_PER_CHILD; 0).
  --max-memory-per-task SIZE       Allocations of a child beyond this fail, such as 2G; 0 = no limit. Linux only
                                   (REPROQ_MAX_MEMORY_PER_TASK; 0).
  --executor-env LIST              Variables that tasks get beside PATH, HOME, LANG, TZ, PYTHON* and their like; a
                                   star at the end stands for any rest (REPROQ_EXECUTOR_ENV; all but METRICS_*).
  --payload-mode MODE              stdin, file, or inline (development only) (stdin).
  --exec-timeout DURATION          The longest any task may run, whatever it says itself (1h).

Time:
  --lease-seconds N                How long a claim holds without renewal (300).
  --heartbeat-seconds N            Renew so often; at least three times a lease in any case (60).
  --reclaim-interval-seconds N     Look for leases of dead workers so often; 0 = never (60).
  --poll-min-backoff DURATION      Without notifications: the shortest pause between looks (100ms).
  --poll-max-backoff DURATION      Without notifications: the longest pause between looks (5s).
  --shutdown-timeout DURATION      After a signal, let tasks run on for so long (30s).
  --grace-seconds N                From SIGTERM to SIGKILL for a task; at most a quarter of the lease
                                   (REPROQ_GRACE_SECONDS; 5).

Identity:
  --worker-id NAME                 Shown in the tables and logs (WORKER_ID; hostname-pid).
  --process-role ROLE              Shown in the log (REPROQ_PROCESS_ROLE).

Files:
  --config PATH                    Configuration file, YAML or TOML (REPROQ_CONFIG; else reproq.yaml, reproq.yml,
                                   reproq.toml and the same with a dot before, in the working directory).
  --logs-dir DIR                   Keep the output of each attempt in a file here (REPROQ_LOGS_DIR).

HTTP (/metrics, /healthz, /livez, /readyz, /events); off without one of the first two:
  --metrics-port PORT              Serve on this port of all interfaces; 0 = no (0). It replaces an address from a
                                   weaker source, such as METRICS_ADDR.
  --metrics-addr ADDR              Serve on host:port, or :port for all interfaces (METRICS_ADDR).
  --metrics-auth-token TOKEN       Ask for this bearer token. Better in a file: METRICS_AUTH_TOKEN_FILE
                                   (METRICS_AUTH_TOKEN).
  --metrics-allow-cidrs LIST       Let only these addresses and networks in (METRICS_ALLOW_CIDRS).
  --metrics-tls-cert PATH          Serve TLS with this certificate chain, PEM (METRICS_TLS_CERT).
  --metrics-tls-key PATH           Its private key, PEM (METRICS_TLS_KEY).
  --metrics-tls-client-ca PATH     Ask for a client certificate of this CA, PEM (METRICS_TLS_CLIENT_CA).
  --metrics-auth-limit N           So many wrong tokens a host may send in a window, then 429
                                   (METRICS_AUTH_LIMIT; 30).
  --metrics-auth-window DURATION   That window (METRICS_AUTH_WINDOW; 1m).
  --metrics-auth-max-entries N     Hosts remembered for that (METRICS_AUTH_MAX_ENTRIES; 1000).

  -h --help                        Show this.

`reproq-listen config --reference` lists all settings with their variables, keys and defaults. A secret may also come
from a file: DATABASE_URL_FILE, METRICS_AUTH_TOKEN_FILE. LOW_MEMORY_MODE=1: no HTTP server.

Signals: SIGTERM or SIGINT stops claiming, waits for running tasks, then gives back what has not ended, attempts not
charged. A second one, or SIGQUIT, ends at once. SIGHUP: tasks that start from now on run the code as it is now.

Where it may make a control group (version 2; as root, or with Delegate=yes in a systemd unit) nothing that a task
starts can outlive the worker. The event worker_started says which group, or why there is none.

Exit codes: 0 stopped or drained, 1 failed, 2 wrong flag or setting, 3 no schema or one of another version, 4 the
database did not answer within {start_limit:g} s of the start (later the worker waits for its database for ever),
7 the template of fork or pool could not import the application.
""".replace("{start_limit:g}", f"{START_LIMIT:g}")


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Check the settings, then work. Raises ReproqError."""
    sources = config.read_sources(flags, os.environ)
    settings = config.worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    warnings = config.warnings(sources)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as a parent may have left it, it hides how children end
    with _database(settings) as dsn:
        return asyncio.run(_work(settings, dsn, program, warnings))


@contextmanager
def _database(settings: WorkerSettings) -> Iterator[str]:
    """Give the DSN to work on; with --embedded, of a migrated server that lives as long as we do."""
    if settings.dsn is not None:
        yield settings.dsn
        return
    # The optional extra; a worker without it does not pay for yoyo either.
    from reproq_listen.db.migrations import migrate
    from reproq_listen.embedded.server import EmbeddedServer, default_home

    with EmbeddedServer(default_home()) as server:
        migrate(server.dsn(), schema=settings.schema, report=lambda _: None)
        yield server.dsn()


async def _work(settings: WorkerSettings, dsn: str, program: str, warnings: Sequence[str]) -> ExitCode:
    conninfo = dsns.conninfo(dsn)
    listen_dsn = settings.listen_dsn
    listen = conninfo if listen_dsn is None else dsns.conninfo(listen_dsn, "--listen-dsn")
    secrets = dsns.secrets(dsn) | (dsns.secrets(listen_dsn) if listen_dsn else frozenset())
    if settings.http and settings.http.auth_token:
        secrets |= {settings.http.auth_token}
    log = set_up(secrets).bind(worker_id=settings.worker_id)
    if settings.process_role:
        log = log.bind(process_role=settings.process_role)
    for warning in warnings:
        log.warning(Event.CONFIG_WARNING, message=warning)
    logs = None if settings.logs_dir is None else TaskLogs(settings.logs_dir)
    manager = ServiceManager.adopt(os.environ, log)
    limit = min(CALL_LIMIT, settings.lease.total_seconds() / 4)
    stop = Stop()
    async with AsyncExitStack() as stack:
        stack.enter_context(on_signals(stop))
        connections: list[Connection] = []
        log = await _serve_pages(settings, conninfo, connections, stack, log)
        refusals: list[str] = []  # the schema does not serve our contract any more

        def refuse(reason: str) -> None:
            if not refusals:
                log.error(Event.CONTRACT_REFUSED, reason=reason)
                refusals.append(reason)
                stop.draining.set()

        prepare = checking_contract(prepare_session, settings.schema, refuse)
        connections += (Connection(conninfo, job, log, prepare, limit) for job in _JOBS)
        control, finish, lease = (Database(connection, settings.schema) for connection in connections)
        for database in (control, finish, lease):
            stack.push_async_callback(database.close)
        metadata_writer = MetadataWriter(control, log)
        executor = _executor(settings, _open_files(settings, log), metadata_writer.put, log)
        stack.push_async_callback(executor.close)
        if not await _open(executor, stop):
            return ExitCode.OK
        stack.enter_context(on_hangup(lambda: _reload(executor, log)))
        incarnation = await _enter(control, settings, stop, dsn, program, log)
        if incarnation is None:
            return ExitCode.OK
        worker = Worker(
            settings, incarnation, control, finish, lease, listen, executor, metadata_writer, logs, stop, manager, log
        )
        _say_started(settings, incarnation, dsns.describe(dsn), executor.control_group, log)
        gc.freeze()  # what is there now stays: the collector need not walk it again and again while tasks rush by
        stored = await worker.run()
        log.info(Event.WORKER_STOPPED)
    if refusals:
        raise contract_refused(refusals[0], dsn, settings.schema, program)
    return ExitCode.OK if stored else ExitCode.FAILURE


async def _serve_pages(
    settings: WorkerSettings, conninfo: str, connections: Sequence[Connection], stack: AsyncExitStack, log: Log
) -> Log:
    """Serve metrics, probes and events if asked to, until `stack` ends. Gives the log that the pages hear.

    `connections` is looked at as it is when a page is asked for. Raises SettingError.
    """
    if settings.memory_log_interval is not None:
        stack.callback(asyncio.create_task(log_memory(settings.memory_log_interval, log)).cancel)
    if settings.http is None:
        return log
    # Only who asks for pages pays, in memory and in time, for what makes them.
    from reproq_listen.http.server import HttpServer

    # The server hears of its own calls, too; it is made a few lines further down.
    heard = log.tapped(lambda event, level, fields: server.tap(event, level, fields))
    database = Database(Connection(conninfo, "pages", heard, prepare_session, _PAGES_LIMIT), settings.schema)
    stack.push_async_callback(database.close)
    server = HttpServer(
        settings.http,
        settings.concurrency,
        settings.heartbeat,
        settings.lease,
        settings.poll_max_backoff,
        database,
        connections,
        log,
    )
    stack.push_async_callback(server.close)
    await server.start()
    return heard


async def _open(executor: PerTaskExecutor | PoolExecutor, stop: Stop) -> bool:
    """Open it, imports and all. False if told to stop meanwhile. Raises ReproqError."""
    opening = asyncio.create_task(executor.open())
    told = asyncio.create_task(stop.draining.wait())
    await asyncio.wait((opening, told), return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    opening.cancel()  # no matter if it is done
    try:
        await opening
    except asyncio.CancelledError:
        return False
    return True


async def _enter(
    control: Database, settings: WorkerSettings, stop: Stop, dsn: str, program: str, log: Log
) -> UUID | None:
    """Check the contract and enter the registry. None if told to stop meanwhile. Raises ReproqError."""
    return await enter(
        control,
        lambda: control.register(
            settings.worker_id,
            socket.gethostname(),
            settings.concurrency,
            settings.queues,
            __version__,
            settings.allowed_task_modules,
        ),
        stop,
        dsn,
        settings.schema,
        program,
        log,
    )


async def _reload(executor: PerTaskExecutor | PoolExecutor, log: Log) -> None:
    await executor.reload()
    log.info(Event.CODE_RELOADED)


def _mode(settings: WorkerSettings) -> str:
    return settings.executor or ("fork" if can_fork() else "spawn")


def _open_files(settings: WorkerSettings, log: Log) -> int:
    """See that there may be enough of them here. Gives how many children may have: as many as this process so far."""
    former = raise_open_files()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    enough = _FILES + _FILES_PER_TASK * settings.concurrency
    if most != resource.RLIM_INFINITY and most < enough:
        text = f"this process may have {most} open files, --concurrency {settings.concurrency} may need {enough}"
        log.warning(Event.CONFIG_WARNING, message=f"{text}: raise the hard limit (ulimit -Hn, LimitNOFILE)")
    return former


def _executor(settings: WorkerSettings, open_files: int, noted: Noted, log: Log) -> PerTaskExecutor | PoolExecutor:
    """Make what runs the tasks; it is opened later. Raises SettingError if this platform has no such thing."""

    def warn(text: str) -> None:
        log.warning(Event.EXECUTOR_WARNING, message=text)

    mode = _mode(settings)
    made = structs.replace(_executor_settings(settings), open_files=open_files)
    if mode == "spawn":
        return spawn_executor(made, warn, noted)
    if not can_fork():
        raise SettingError(f"--executor {mode} needs Linux with pidfds (5.3 or newer); use --executor spawn")
    if mode == "pool":
        return PoolExecutor(made, settings.concurrency, warn, noted)
    return fork_executor(made, warn, noted)


def _executor_settings(settings: WorkerSettings) -> ExecutorSettings:
    made = ExecutorSettings(
        python_bin=settings.python_bin,
        executor_module=settings.executor_module,
        payload_mode=settings.payload_mode,
        allowed_task_modules=settings.allowed_task_modules,
        exec_timeout=settings.exec_timeout,
        grace=effective_grace(settings.lease, settings.grace),
        max_payload_bytes=settings.max_payload_bytes,
        max_stdout_bytes=settings.max_stdout_bytes,
        preload=settings.preload,
        memory_bytes=settings.max_memory_per_task,
        executor_env=settings.executor_env,
        max_tasks_per_child=settings.max_tasks_per_child,
        max_memory_per_child_bytes=settings.max_memory_per_child,
    )
    if settings.logs_dir is None:
        return made
    return structs.replace(
        made, kept_stdout_bytes=settings.max_stdout_bytes, kept_stderr_bytes=settings.max_stderr_bytes
    )


def _say_started(settings: WorkerSettings, incarnation: UUID, database: str, control_group: str, log: Log) -> None:
    log.info(
        Event.WORKER_STARTED,
        version=__version__,
        incarnation=incarnation,
        database=database,
        pid=os.getpid(),
        queues=settings.queues,
        concurrency=settings.concurrency,
        executor=_mode(settings),
        control_group=control_group,
        lease_seconds=settings.lease,
        allowed_task_modules=settings.allowed_task_modules,
    )
