"""Settings as objects: read from flags, environment, file and defaults, and checked as a whole.

A field is filled from the setting that its annotation names.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, TypeVar, get_type_hints

from msgspec import Struct, structs

from reproq_listen.config import definitions, file
from reproq_listen.config.definitions import ExecutorMode, PayloadMode
from reproq_listen.config.parsers import HostPort
from reproq_listen.config.sources import LEVELS, Setting, Sources
from reproq_listen.db.dsn import dropped_parameters, secrets
from reproq_listen.errors import SettingError

S = TypeVar("S", bound=Struct)


class HttpSettings(Struct, frozen=True, kw_only=True):
    """Where and how to serve metrics, health and events."""

    host: str | None  # None: all interfaces
    port: int
    auth_token: Annotated[str | None, definitions.AUTH_TOKEN]
    allow: Annotated[tuple[IPv4Network | IPv6Network, ...], definitions.ALLOW_CIDRS]  # empty: all
    tls_cert: Annotated[str | None, definitions.TLS_CERT]
    tls_key: Annotated[str | None, definitions.TLS_KEY]
    tls_client_ca: Annotated[str | None, definitions.TLS_CLIENT_CA]
    auth_limit: Annotated[int, definitions.AUTH_LIMIT]
    auth_window: Annotated[timedelta, definitions.AUTH_WINDOW]
    auth_max_entries: Annotated[int, definitions.AUTH_MAX_ENTRIES]


class WorkerSettings(Struct, frozen=True, kw_only=True):
    """All settings of `reproq-listen worker`, checked. `dsn` is None with `embedded`."""

    dsn: Annotated[str | None, definitions.WORKER_DSN]
    listen_dsn: Annotated[str | None, definitions.LISTEN_DSN]
    schema: Annotated[str | None, definitions.SCHEMA]
    embedded: Annotated[bool, definitions.EMBEDDED]
    drain: Annotated[bool, definitions.DRAIN]
    queues: Annotated[tuple[str, ...], definitions.QUEUES]
    concurrency: Annotated[int, definitions.CONCURRENCY]
    worker_id: Annotated[str, definitions.WORKER_ID]
    lease: Annotated[timedelta, definitions.LEASE]
    heartbeat: Annotated[timedelta, definitions.HEARTBEAT]
    reclaim_interval: Annotated[timedelta, definitions.RECLAIM]  # zero: this worker does not reclaim
    aging_factor: Annotated[float, definitions.AGING]
    allowed_task_modules: Annotated[tuple[str, ...], definitions.ALLOWED]
    python_bin: Annotated[str, definitions.PYTHON_BIN]
    executor_module: Annotated[str, definitions.EXECUTOR_MODULE]
    executor: Annotated[ExecutorMode | None, definitions.EXECUTOR]  # None: the best that the platform has
    preload: Annotated[tuple[str, ...], definitions.PRELOAD]
    max_tasks_per_child: Annotated[int, definitions.MAX_TASKS]
    max_memory_per_child: Annotated[int, definitions.MAX_MEMORY]  # bytes, as the next
    max_memory_per_task: Annotated[int, definitions.TASK_MEMORY]
    executor_env: Annotated[tuple[str, ...] | None, definitions.EXECUTOR_ENV]  # None: all variables
    payload_mode: Annotated[PayloadMode, definitions.PAYLOAD_MODE]
    poll_min_backoff: Annotated[timedelta, definitions.POLL_MIN]
    poll_max_backoff: Annotated[timedelta, definitions.POLL_MAX]
    shutdown_timeout: Annotated[timedelta, definitions.SHUTDOWN]
    grace: Annotated[timedelta, definitions.GRACE]
    exec_timeout: Annotated[timedelta, definitions.EXEC_TIMEOUT]
    max_payload_bytes: Annotated[int, definitions.MAX_PAYLOAD]
    max_stdout_bytes: Annotated[int, definitions.MAX_STDOUT]
    max_stderr_bytes: Annotated[int, definitions.MAX_STDERR]
    logs_dir: Annotated[str | None, definitions.LOGS_DIR]
    process_role: Annotated[str | None, definitions.PROCESS_ROLE]
    memory_log_interval: Annotated[timedelta | None, definitions.MEMORY_LOG]
    beat: timedelta | None  # interval of the beat inside this worker; None: it has none
    http: HttpSettings | None


class BeatSettings(Struct, frozen=True, kw_only=True):
    """All settings of `reproq-listen beat`, checked."""

    dsn: Annotated[str, definitions.BEAT_DSN]
    listen_dsn: Annotated[str | None, definitions.LISTEN_DSN]
    schema: Annotated[str | None, definitions.SCHEMA]
    interval: Annotated[timedelta, definitions.BEAT_INTERVAL]
    once: Annotated[bool, definitions.ONCE]


class HealthSettings(Struct, frozen=True, kw_only=True):
    """Settings of `reproq-listen health` for its question to the database."""

    dsn: Annotated[str, definitions.WORKER_DSN]
    schema: Annotated[str | None, definitions.SCHEMA]
    worker_id: Annotated[str | None, definitions.WORKER_ID]
    lease: Annotated[timedelta, definitions.LEASE]
    heartbeat: Annotated[timedelta, definitions.HEARTBEAT]
    within: Annotated[timedelta | None, definitions.WITHIN]


class OperatorSettings(Struct, frozen=True, kw_only=True):
    """Settings that all operators' commands share."""

    dsn: Annotated[str, definitions.DSN]
    schema: Annotated[str | None, definitions.SCHEMA]
    reason: Annotated[str | None, definitions.REASON]


class NoDatabaseError(SettingError):
    """No source names a database."""

    def __init__(self) -> None:
        super().__init__(
            "no database given: pass --dsn postgresql://user@host/database, set DATABASE_URL, or set dsn in a "
            "configuration file (to try it without a server: reproq-listen demo)"
        )


def settings_of(struct: type[Struct]) -> Mapping[str, Setting[Any]]:
    """The setting of each field that has one."""
    hints = get_type_hints(struct, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")}


def read(struct: type[S], sources: Sources, /, **defaults: object) -> S:
    """Fill a struct from the settings that its fields name. Raises SettingError.

    `defaults`: values of fields without a setting, and of fields whose setting is not given. Without one for `dsn`,
    a database must be given.
    """
    fields = dict(defaults)
    for name, setting in settings_of(struct).items():
        value = sources.find(setting)
        if value is not None:
            fields[name] = value
        elif name not in fields:
            if name == "dsn":
                raise NoDatabaseError
            fields[name] = None if setting.default is None else setting.parse(setting.default)
    return struct(**fields)


def read_sources(flags: Mapping[str, object], environ: Mapping[str, str], *, tolerant: bool = False) -> Sources:
    """Read the configuration file, if there is one, and give all sources. Raises SettingError.

    `tolerant`: keys of the file that are not known are no error, as for the Go program.
    """
    named = Sources(flags, environ).trace(definitions.CONFIG)
    chosen = file.find() if named is None else (named.text, named.name)
    return Sources(flags, environ, None if chosen is None else file.read(*chosen, definitions.KEYS, tolerant=tolerant))


def warnings(sources: Sources) -> list[str]:
    """Settings of a worker that are valid and probably not what was meant. Raises SettingError."""
    found = shared_warnings(sources, definitions.WORKER_DSN)
    given = sources.trace(definitions.MAX_ATTEMPTS)
    if given is not None and sources.get(definitions.MAX_ATTEMPTS) != Sources({}, {}).get(definitions.MAX_ATTEMPTS):
        found.append(
            f"{given.name} has no effect: every task has its own max_attempts, given when it is enqueued (3 if not "
            "given); remove this setting"
        )
    return found


def shared_warnings(sources: Sources, dsn: Setting[str]) -> list[str]:
    """Warnings about the file and the DSNs. `dsn`: the setting that the command reads. Raises SettingError."""
    exposed = file_warning(sources)
    found = [*(sources.file.unknown if sources.file else ()), *([exposed] if exposed else ())]
    for setting in (dsn, definitions.LISTEN_DSN):
        value, name = sources.find(setting), sources.source_of(setting)
        if dropped := dropped_parameters(value, name) if value else ():
            found.append(
                f"{name}: {', '.join(dropped)} in the DSN is for the driver of the Go program: it has no effect"
            )
    return found


def file_warning(sources: Sources) -> str | None:
    """A warning if every user of this machine may read the secrets in the file."""
    config = sources.file
    if config is None or not config.is_readable_by_all:
        return None
    held = [key for setting in definitions.ALL if setting.is_secret for key in setting.keys if key in config.values]
    texts = {key: config.values[key].text for key in dict.fromkeys(held)}
    exposed = [key for key, text in texts.items() if text and (not key.endswith("dsn") or secrets(text, key))]
    if not exposed:
        return None
    return f"{config.path} holds {', '.join(exposed)} and every user may read it: chmod 600 {config.path}"


def worker_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], *, as_reproq: bool = False
) -> WorkerSettings:
    """Read and check all settings of the worker. Raises SettingError.

    `as_reproq`: with the defaults of the Go program where they differ from ours.
    """
    return worker_settings_of(read_sources(flags, environ, tolerant=as_reproq), environ, as_reproq=as_reproq)


def worker_settings_of(sources: Sources, environ: Mapping[str, str], *, as_reproq: bool = False) -> WorkerSettings:
    """The same from sources that have been read. Raises NoDatabaseError if nothing else is wrong."""
    sources.get(definitions.MAX_ATTEMPTS)  # has no effect, and is checked like the others
    lease = sources.get(definitions.LEASE)
    settings = read(
        WorkerSettings,
        sources,
        dsn=None,
        worker_id=default_worker_id(),
        python_bin="python3" if as_reproq else sys.executable or "python3",
        executor_module=definitions.REPROQ_EXECUTOR if as_reproq else definitions.OUR_EXECUTOR,
        # A short lease shortens these defaults. A value that is given stays.
        heartbeat=min(_default(definitions.HEARTBEAT), lease / 3),
        grace=min(_default(definitions.GRACE), lease / 4),
        beat=sources.get(definitions.BEAT_INTERVAL) if sources.get(definitions.WITH_BEAT) else None,
        http=http_settings(sources),
    )
    _check_together(settings, sources, environ)
    if settings.embedded:
        return structs.replace(settings, dsn=None)
    if settings.dsn is None:
        raise NoDatabaseError
    return settings


def http_settings(sources: Sources) -> HttpSettings | None:
    """Where to serve HTTP, or None: not at all. Raises SettingError."""
    address, port = _address(sources), sources.get(definitions.PORT)
    settings = read(
        HttpSettings,
        sources,
        host=address.host if address else None,
        port=address.port if address and address.port is not None else port,
        allow=(),
    )
    if address and address.port is None and not port:
        raise SettingError("--metrics-addr has no port: give host:port, or --metrics-port too")
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise SettingError("--metrics-tls-cert and --metrics-tls-key belong together: give both, or neither")
    if settings.tls_client_ca is not None and settings.tls_cert is None:
        raise SettingError("--metrics-tls-client-ca needs --metrics-tls-cert and --metrics-tls-key: give them too")
    is_off = (address is None and not port) or sources.get(definitions.LOW_MEMORY)
    return None if is_off else settings


def _address(sources: Sources) -> HostPort | None:
    """The address to serve on. A port from a stronger source replaces its port, never its host; 0 switches it off."""
    address, given, port = (
        sources.find(definitions.ADDR),
        sources.trace(definitions.ADDR),
        sources.trace(definitions.PORT),
    )
    if address is None or given is None or port is None or LEVELS.index(port.kind) <= LEVELS.index(given.kind):
        return address
    number = sources.get(definitions.PORT)
    return HostPort(address.host, number) if number else None


def _default(setting: Setting[Any]) -> timedelta:
    value: timedelta = setting.parse(str(setting.default))
    return value


def default_worker_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _check_together(settings: WorkerSettings, sources: Sources, environ: Mapping[str, str]) -> None:
    """Refuse values that are valid one by one and wrong together."""
    if settings.embedded and (sources.given("--dsn") or sources.given("--listen-dsn")):
        raise SettingError("--embedded starts a server of its own: leave out --dsn and --listen-dsn, or --embedded")
    if settings.heartbeat >= settings.lease:
        raise SettingError(
            f"--heartbeat-seconds ({settings.heartbeat.total_seconds():g}) must be less than "
            f"--lease-seconds ({settings.lease.total_seconds():g}), or every lease ends before it is "
            "renewed: give a third of the lease or less"
        )
    if settings.grace >= settings.lease:
        raise SettingError(
            f"--grace-seconds ({settings.grace.total_seconds():g}) must be less than "
            f"--lease-seconds ({settings.lease.total_seconds():g}), or a task outlives its lease: give a quarter of "
            "the lease or less"
        )
    if settings.poll_min_backoff > settings.poll_max_backoff:
        raise SettingError("--poll-min-backoff must not be more than --poll-max-backoff: lower it, or raise the other")
    if settings.payload_mode == "inline" and environ.get("REPROQ_DEV") != "1":
        raise SettingError(
            "--payload-mode inline shows every payload in the process list and is for development only: use stdin or "
            "file, or set REPROQ_DEV=1"
        )
