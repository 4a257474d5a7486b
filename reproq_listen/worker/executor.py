"""Makes the executor that the settings ask for: spawn, fork or pool."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from functools import partial

from msgspec import structs

from reproq_listen.config.definitions import ExecutorMode
from reproq_listen.config.settings import WorkerSettings
from reproq_listen.errors import SettingError
from reproq_listen.executors.per_task.executor import OnMetadata, OnRequest, PerTaskExecutor, no_answer
from reproq_listen.executors.per_task.fork import can_fork, fork_executor
from reproq_listen.executors.per_task.spawn import spawn_executor
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.executors.process.limits import raise_open_files
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ExecutorSettings
from reproq_listen.worker.attempt_events import log_child_output
from reproq_listen.worker.leases import effective_grace

_WORKER_FILES = 64  # open files of a worker that runs no task, with a reserve
_FILES_PER_TASK = 8  # pipes and the like to a child
_AHEAD_PER_CORE = 2  # children of mode fork that wait for a task


def make_executor(
    settings: WorkerSettings,
    open_files: int,
    on_metadata: OnMetadata,
    on_room: Callable[[], None],
    log: Log,
    on_request: OnRequest = no_answer,
) -> PerTaskExecutor | PoolExecutor:
    """Make the executor, not opened yet. Raises SettingError if this platform does not support its mode.

    `open_files`: the limit for children. `on_metadata` gets the metadata that a running task saves, `on_request` what
    it asks. `on_room` is called when more tasks may start.
    """

    def warn(text: str) -> None:
        log.warning(Event.EXECUTOR_WARNING, message=text)

    is_paused = False

    def pause(why: str, seconds: float) -> None:
        nonlocal is_paused
        is_paused = True
        log.error(Event.EXECUTOR_PAUSED, message=why, retry_in=round(seconds, 3))

    def resume() -> None:
        nonlocal is_paused
        if is_paused:
            log.info(Event.EXECUTOR_RESUMED)
        is_paused = False
        on_room()

    mode = executor_mode(settings)
    made = _executor_settings(settings, open_files)
    if mode == "spawn":
        return spawn_executor(made, warn, on_metadata, pause, resume, on_request)
    if not can_fork():
        raise SettingError(f"--executor {mode} needs Linux with pidfds (5.3 or newer); use --executor spawn")
    if mode == "pool":
        show = partial(log_child_output, log)
        return PoolExecutor(made, settings.concurrency, warn, on_metadata, on_room, show, pause, resume, on_request)
    return fork_executor(made, warn, on_metadata, pause, resume, on_request)


def executor_mode(settings: WorkerSettings) -> ExecutorMode:
    """The configured mode, or else the best one that this platform supports."""
    return settings.executor or ("fork" if can_fork() else "spawn")


def allow_open_files(settings: WorkerSettings, log: Log) -> int:
    """Raise this process's limit of open files, and warn if it is too low. Returns the limit for children: the old
    one."""
    former = raise_open_files()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    needed = _WORKER_FILES + _FILES_PER_TASK * settings.concurrency
    if limit != resource.RLIM_INFINITY and limit < needed:
        text = f"this process may have {limit} open files, --concurrency {settings.concurrency} may need {needed}"
        log.warning(Event.CONFIG_WARNING, message=f"{text}: raise the hard limit (ulimit -Hn, LimitNOFILE)")
    return former


def _executor_settings(settings: WorkerSettings, open_files: int) -> ExecutorSettings:
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
        open_files=open_files,
        executor_env=settings.executor_env,
        database_url=settings.dsn if settings.embedded else None,
        children_ahead=min(settings.concurrency, _AHEAD_PER_CORE * (os.cpu_count() or 1)),
        max_tasks_per_child=settings.max_tasks_per_child,
        max_memory_per_child_bytes=settings.max_memory_per_child,
    )
    if settings.logs_dir is None:
        return made
    return structs.replace(
        made, kept_stdout_bytes=settings.max_stdout_bytes, kept_stderr_bytes=settings.max_stderr_bytes
    )
