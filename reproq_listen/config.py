"""Settings: flags before environment before defaults; every value checked; every error names its source.

A flag that was not given is `None` and is not the same as an empty one. An empty environment variable
counts as not given, but for ALLOWED_TASK_MODULES, where empty means that no module is allowed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Literal, TypeVar

from msgspec import Struct

from reproq_listen import values
from reproq_listen.errors import SettingError

T = TypeVar("T")
PayloadMode = Literal["stdin", "file", "inline"]

DEFAULT_QUEUES = ("default",)
DEFAULT_ALLOWED_MODULES = ("myapp.tasks.", "tasks.")
OUR_EXECUTOR = "reproq_listen.executor"
REPROQ_EXECUTOR = "reproq_django.executor"
MAX_CONCURRENCY = 1000
MAX_INTERVAL = timedelta(days=7)
ZERO = timedelta(0)
TICK = timedelta(milliseconds=1)


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
    payload_mode: PayloadMode
    poll_min_backoff: timedelta
    poll_max_backoff: timedelta
    shutdown_timeout: timedelta
    grace: timedelta
    exec_timeout: timedelta


@dataclass(frozen=True)
class Setting(Generic[T]):
    """One setting: where it may come from, and how its text becomes a value."""

    flag: str
    parse: Callable[[str], T]
    env: str | None = None
    empty_env_counts: bool = False


class Sources:
    """The places a setting may come from, strongest first."""

    def __init__(self, flags: Mapping[str, object], environ: Mapping[str, str]) -> None:
        self._flags = flags
        self._environ = environ

    def find(self, setting: Setting[T]) -> T | None:
        """Give the value, or None if nobody set it. Raises SettingError that names the source."""
        flag = self._flags.get(setting.flag)
        if flag is not None:
            return _parse(setting, setting.flag, str(flag))
        if setting.env is not None:
            text = self._environ.get(setting.env)
            if text or (text is not None and setting.empty_env_counts):
                return _parse(setting, setting.env, text)
        return None

    def get(self, setting: Setting[T], default: T) -> T:
        found = self.find(setting)
        return default if found is None else found

    def is_on(self, flag: str) -> bool:
        return bool(self._flags.get(flag))

    def given(self, flag: str) -> bool:
        return self._flags.get(flag) is not None


def _parse(setting: Setting[T], source: str, text: str) -> T:
    try:
        return setting.parse(text)
    except ValueError as error:
        raise SettingError(f"{source}: {error}") from None


DSN = Setting("--dsn", values.dsn, "DATABASE_URL")
LISTEN_DSN = Setting("--listen-dsn", values.dsn)
SCHEMA = Setting("--schema", values.schema_name)
QUEUES = Setting("--queues", values.queue_names, "QUEUE_NAMES")
CONCURRENCY = Setting("--concurrency", values.whole_number(1, MAX_CONCURRENCY))
WORKER_ID = Setting("--worker-id", values.name(255), "WORKER_ID")
LEASE = Setting("--lease-seconds", values.seconds(timedelta(seconds=1), MAX_INTERVAL))
HEARTBEAT = Setting("--heartbeat-seconds", values.seconds(timedelta(seconds=0.1), MAX_INTERVAL))
RECLAIM = Setting("--reclaim-interval-seconds", values.seconds(ZERO, MAX_INTERVAL))
AGING = Setting("--priority-aging-factor", values.aging_factor, "PRIORITY_AGING_FACTOR")
ALLOWED = Setting("--allowed-task-modules", values.module_prefixes, "ALLOWED_TASK_MODULES", empty_env_counts=True)
PYTHON_BIN = Setting("--python-bin", values.name(4096))
EXECUTOR_MODULE = Setting("--executor-module", values.module_name)
PAYLOAD_MODE: Setting[PayloadMode] = Setting("--payload-mode", values.payload_mode)
POLL_MIN = Setting("--poll-min-backoff", values.duration(TICK, MAX_INTERVAL))
POLL_MAX = Setting("--poll-max-backoff", values.duration(TICK, MAX_INTERVAL))
SHUTDOWN = Setting("--shutdown-timeout", values.duration(ZERO, MAX_INTERVAL))
GRACE = Setting("--grace-seconds", values.seconds(ZERO, timedelta(hours=1)))
EXEC_TIMEOUT = Setting("--exec-timeout", values.duration(TICK, timedelta(days=365)))


def worker_settings(
    flags: Mapping[str, object], environ: Mapping[str, str], *, executor_module: str = OUR_EXECUTOR
) -> WorkerSettings:
    """Read and check everything the worker needs. Raises SettingError."""
    sources = Sources(flags, environ)
    embedded = sources.is_on("--embedded")
    settings = WorkerSettings(
        dsn=None if embedded else required_dsn(sources),
        listen_dsn=sources.find(LISTEN_DSN),
        schema=sources.find(SCHEMA),
        embedded=embedded,
        drain=sources.is_on("--drain"),
        queues=sources.get(QUEUES, DEFAULT_QUEUES),
        concurrency=sources.get(CONCURRENCY, 10),
        worker_id=sources.find(WORKER_ID) or default_worker_id(),
        lease=sources.get(LEASE, timedelta(seconds=300)),
        heartbeat=sources.get(HEARTBEAT, timedelta(seconds=60)),
        reclaim_interval=sources.get(RECLAIM, timedelta(seconds=60)),
        aging_factor=sources.get(AGING, 60.0),
        allowed_task_modules=sources.get(ALLOWED, DEFAULT_ALLOWED_MODULES),
        python_bin=sources.get(PYTHON_BIN, sys.executable or "python3"),
        executor_module=sources.get(EXECUTOR_MODULE, executor_module),
        payload_mode=sources.get(PAYLOAD_MODE, "stdin"),
        poll_min_backoff=sources.get(POLL_MIN, timedelta(milliseconds=100)),
        poll_max_backoff=sources.get(POLL_MAX, timedelta(seconds=5)),
        shutdown_timeout=sources.get(SHUTDOWN, timedelta(seconds=30)),
        grace=sources.get(GRACE, timedelta(seconds=5)),
        exec_timeout=sources.get(EXEC_TIMEOUT, timedelta(hours=1)),
    )
    _check_together(settings, sources, environ)
    return settings


def required_dsn(sources: Sources) -> str:
    """Give the DSN. Raises SettingError that says how to give one."""
    found = sources.find(DSN)
    if found is None:
        raise SettingError(
            "no database given: pass --dsn postgresql://user@host/database or set DATABASE_URL "
            "(to try it without a server: reproq-listen demo)"
        )
    return found


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
