"""What the program is told, read from flags, environment, file and defaults, and checked as a whole."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network

from msgspec import Struct

from reproq_listen.config import definitions as table
from reproq_listen.config import file as config_file
from reproq_listen.config.definitions import DEFAULT_ALLOWED_MODULES as DEFAULT_ALLOWED_MODULES
from reproq_listen.config.definitions import DSN as DSN
from reproq_listen.config.definitions import OUR_EXECUTOR as OUR_EXECUTOR
from reproq_listen.config.definitions import REPROQ_EXECUTOR as REPROQ_EXECUTOR
from reproq_listen.config.definitions import SCHEMA as SCHEMA
from reproq_listen.config.definitions import ExecutorMode, PayloadMode
from reproq_listen.config.parsers import Address
from reproq_listen.config.sources import LEVELS
from reproq_listen.config.sources import Setting as Setting
from reproq_listen.config.sources import Sources as Sources
from reproq_listen.db import dsn as dsns
from reproq_listen.errors import SettingError


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Where and how to serve metrics, health and events."""

    host: str | None  # None: all interfaces
    port: int
    auth_token: str | None
    allow: tuple[IPv4Network | IPv6Network, ...]  # empty: everybody
    tls_cert: str | None
    tls_key: str | None
    tls_client_ca: str | None
    auth_limit: int
    auth_window: timedelta
    auth_max_entries: int


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """All that `reproq-listen worker` is told, checked. `dsn` is None with `embedded`."""

    dsn: str | None
    listen_dsn: str | None
    schema: str | None
    embedded: bool
    drain: bool
    queues: tuple[str, ...]
    concurrency: int
    worker_id: str
    lease: timedelta
    heartbeat: timedelta
    reclaim_interval: timedelta  # zero: this worker does not reclaim
    aging_factor: float  # seconds of waiting that weigh as much as one step of priority; 0 = off
    allowed_task_modules: tuple[str, ...]
    python_bin: str
    executor_module: str
    executor: ExecutorMode | None  # None: the best that the platform has
    preload: tuple[str, ...]
    max_tasks_per_child: int
    max_memory_per_child: int  # bytes, as the next
    max_memory_per_task: int
    executor_env: tuple[str, ...] | None  # None: all variables
    payload_mode: PayloadMode
    poll_min_backoff: timedelta
    poll_max_backoff: timedelta
    shutdown_timeout: timedelta
    grace: timedelta
    exec_timeout: timedelta
    max_payload_bytes: int
    max_stdout_bytes: int
    max_stderr_bytes: int
    logs_dir: str | None
    process_role: str | None  # only shown
    memory_log_interval: timedelta | None
    beat: timedelta | None  # how often the beat inside looks at least; None: there is none inside
    http: HttpSettings | None


def read_sources(flags: Mapping[str, object], environ: Mapping[str, str], unknown: list[str] | None = None) -> Sources:
    """Read the configuration file, if there is one, and give all sources. Raises SettingError.

    With `unknown`, keys that there are not are no error; what is wrong with them is added to it.
    """
    chosen = config_file.choose(flags.get("--config"), environ)
    file = None if chosen is None else config_file.read(*chosen, table.KEYS, unknown)
    return Sources(flags, environ, file)


def warnings(sources: Sources) -> list[str]:
    """What is not wrong, and not what was meant either. Raises SettingError."""
    found = [text for text in (file_warning(sources),) if text]
    given = sources.trace(table.MAX_ATTEMPTS)
    if given is not None and sources.get(table.MAX_ATTEMPTS) != Sources({}, {}).get(table.MAX_ATTEMPTS):
        found.append(
            f"{given.name} has no effect: every task has a number of its own (max_attempts, given when it is enqueued; "
            "3 if not)"
        )
    return found


def file_warning(sources: Sources) -> str | None:
    """Say it if everybody on this machine may read the secrets in the file."""
    file = sources.file
    if file is None or not file.is_readable_by_all:
        return None
    held = [key for setting in table.ALL if setting.secret for key in setting.keys if key in file.values]
    exposed = [
        key for key in dict.fromkeys(held) if not key.endswith("dsn") or dsns.secrets(file.values[key].text, key)
    ]
    if not exposed:
        return None
    return f"{file.path} holds {', '.join(exposed)} and everybody may read it: chmod 600 {file.path}"


def worker_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], *, as_reproq: bool = False
) -> WorkerSettings:
    """Read and check everything the worker needs. Raises SettingError.

    `as_reproq`: with the defaults of the Go program where they differ from ours.
    """
    return worker_settings_of(read_sources(flags, environ), environ, as_reproq=as_reproq)


def worker_settings_of(sources: Sources, environ: Mapping[str, str], *, as_reproq: bool = False) -> WorkerSettings:
    embedded = sources.is_on("--embedded")
    sources.get(table.MAX_ATTEMPTS)  # checked like the others
    lease = sources.get(table.LEASE)
    settings = WorkerSettings(
        dsn=None if embedded else required_dsn(sources, table.WORKER_DSN),
        listen_dsn=sources.find(table.LISTEN_DSN),
        schema=sources.find(table.SCHEMA),
        embedded=embedded,
        drain=sources.is_on("--drain"),
        queues=sources.get(table.QUEUES),
        concurrency=sources.get(table.CONCURRENCY),
        worker_id=sources.find(table.WORKER_ID) or default_worker_id(),
        lease=lease,
        heartbeat=_given_or_at_most(sources, table.HEARTBEAT, lease / 3),
        reclaim_interval=sources.get(table.RECLAIM),
        aging_factor=sources.get(table.AGING),
        allowed_task_modules=sources.get(table.ALLOWED),
        python_bin=sources.get(table.PYTHON_BIN, "python3" if as_reproq else sys.executable or "python3"),
        executor_module=sources.get(table.EXECUTOR_MODULE, REPROQ_EXECUTOR if as_reproq else OUR_EXECUTOR),
        executor=sources.find(table.EXECUTOR),
        preload=sources.get(table.PRELOAD),
        max_tasks_per_child=sources.get(table.MAX_TASKS),
        max_memory_per_child=sources.get(table.MAX_MEMORY),
        max_memory_per_task=sources.get(table.TASK_MEMORY),
        executor_env=sources.find(table.EXECUTOR_ENV),
        payload_mode=sources.get(table.PAYLOAD_MODE),
        poll_min_backoff=sources.get(table.POLL_MIN),
        poll_max_backoff=sources.get(table.POLL_MAX),
        shutdown_timeout=sources.get(table.SHUTDOWN),
        grace=_given_or_at_most(sources, table.GRACE, lease / 4),
        exec_timeout=sources.get(table.EXEC_TIMEOUT),
        max_payload_bytes=sources.get(table.MAX_PAYLOAD),
        max_stdout_bytes=sources.get(table.MAX_STDOUT),
        max_stderr_bytes=sources.get(table.MAX_STDERR),
        logs_dir=sources.find(table.LOGS_DIR),
        process_role=sources.find(table.PROCESS_ROLE),
        memory_log_interval=sources.find(table.MEMORY_LOG) or None,
        beat=sources.get(table.BEAT_INTERVAL) if sources.is_on("--beat") else None,
        http=http_settings(sources),
    )
    _check_together(settings, sources, environ)
    return settings


def http_settings(sources: Sources) -> HttpSettings | None:
    """Where to serve HTTP, or None: not at all. Raises SettingError."""
    address, port = _address(sources), sources.get(table.PORT)
    settings = HttpSettings(
        host=address.host if address else None,
        port=address.port if address and address.port is not None else port,
        auth_token=sources.find(table.AUTH_TOKEN),
        allow=sources.find(table.ALLOW_CIDRS) or (),
        tls_cert=sources.find(table.TLS_CERT),
        tls_key=sources.find(table.TLS_KEY),
        tls_client_ca=sources.find(table.TLS_CLIENT_CA),
        auth_limit=sources.get(table.AUTH_LIMIT),
        auth_window=sources.get(table.AUTH_WINDOW),
        auth_max_entries=sources.get(table.AUTH_MAX_ENTRIES),
    )
    if address and address.port is None and not port:
        raise SettingError("--metrics-addr has no port: give host:port, or --metrics-port too")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingError("--metrics-tls-cert and --metrics-tls-key belong together: give both, or neither")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise SettingError("--metrics-tls-client-ca needs --metrics-tls-cert and --metrics-tls-key")
    is_off = (address is None and not port) or sources.get(table.LOW_MEMORY)
    return None if is_off else settings


def _address(sources: Sources) -> Address | None:
    """The address to serve on; a port from a stronger source replaces it, but for one that waits for a port."""
    address, given, port = sources.find(table.ADDR), sources.trace(table.ADDR), sources.trace(table.PORT)
    if address is None or given is None or port is None or LEVELS.index(port.kind) <= LEVELS.index(given.kind):
        return address
    return None if address.port is not None or not sources.get(table.PORT) else address


def required_dsn(sources: Sources, setting: Setting[str] = DSN) -> str:
    """Give the DSN. Raises SettingError that says how to give one."""
    found = sources.find(setting)
    if found is None:
        raise SettingError(
            "no database given: pass --dsn postgresql://user@host/database, set DATABASE_URL, or set dsn in a "
            "configuration file (to try it without a server: reproq-listen demo)"
        )
    return found


def _given_or_at_most(sources: Sources, setting: Setting[timedelta], most: timedelta) -> timedelta:
    """The value that somebody gave, else the default, which makes way for a short lease."""
    return sources.get(setting, min(setting.parse(str(setting.default)), most))


def default_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _check_together(settings: WorkerSettings, sources: Sources, environ: Mapping[str, str]) -> None:
    """Refuse values that are fine one by one and wrong together."""
    if settings.embedded and (sources.given("--dsn") or sources.given("--listen-dsn")):
        raise SettingError("--embedded starts a server of its own: leave out --dsn and --listen-dsn, or --embedded")
    if settings.heartbeat >= settings.lease:
        raise SettingError(
            f"--heartbeat-seconds ({settings.heartbeat.total_seconds():g}) must be less than "
            f"--lease-seconds ({settings.lease.total_seconds():g}), or every lease ends before it is "
            "renewed; a third of the lease or less is sound"
        )
    if settings.grace >= settings.lease:
        raise SettingError(
            f"--grace-seconds ({settings.grace.total_seconds():g}) must be less than "
            f"--lease-seconds ({settings.lease.total_seconds():g}), or a task outlives its lease"
        )
    if settings.poll_min_backoff > settings.poll_max_backoff:
        raise SettingError("--poll-min-backoff must not be more than --poll-max-backoff")
    if settings.payload_mode == "inline" and environ.get("REPROQ_DEV") != "1":
        raise SettingError(
            "--payload-mode inline shows every payload in the process list; it is for development "
            "only: use stdin or file, or set REPROQ_DEV=1"
        )
