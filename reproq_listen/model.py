"""The values that travel between the database, the worker and the executors. No behaviour lives here."""

import enum
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

KEPT_FOR_LOG = 64 << 10
"""Bytes of a task's output: what is kept of each stream when only the worker's log is to show it."""


class ClaimedTask(Struct, frozen=True):
    """One row of `reproq_claim`: a task and the lease under which this process may run it.

    `(result_id, lease_token)` is the fence: every later write names both.
    """

    result_id: int
    lease_token: UUID
    queue_name: str
    priority: int
    task_path: str | None
    """The column. What runs is the path inside `spec`; a task whose two paths differ is refused."""
    spec: str
    """`spec_json` as PostgreSQL prints it: handed to the executor unchanged."""
    attempts: int
    max_attempts: int
    timeout_seconds: int
    """0 or less: no limit of its own, only the worker's `exec_timeout`."""
    enqueued_at: datetime
    waited: timedelta
    lost_count: int


class TaskError(Struct, frozen=True, omit_defaults=True):
    """Why an attempt failed, in the form that is appended to `errors_json`.

    Every text is storable as jsonb: no NUL, no lone surrogate, bounded length.
    """

    kind: str
    """One of the failure kinds; whether a kind is retried is decided in SQL."""
    message: str
    exception_class: str | None = None
    traceback: str | None = None
    exit_status: int | None = None
    signal: str | None = None
    """Name of the signal that ended the process, such as `SIGSEGV`."""
    crash_class: str | None = None
    """What ended the process, where it did not end by itself: `oom`, `signal`, `exit` (it left without a result) or
    `timeout`. `oom` also where memory ran out inside of it."""
    stderr_tail: str | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_rss_bytes: int | None = None


class ResourceUsage(Struct, frozen=True, omit_defaults=True):
    """What an attempt used, for `metadata_json.reproq`."""

    wall_seconds: float
    cpu_seconds: float
    """Of its process and of those that it waited for."""
    peak_rss_bytes: int | None = None
    """Of the process. Of a forked one this includes what it shares with its template; of a spawned one it is never
    less than this worker's own, which Linux counts from before the exec."""
    exit_status: int | None = None
    signal: str | None = None


class CapturedOutput(Struct, frozen=True):
    """What came out of a stream: its beginning and its end. Both together are the whole if their lengths add up."""

    head: bytes
    tail: bytes
    total: int


class Outcome(Struct, frozen=True):
    """How an attempt ended. `error` is None exactly when the task succeeded."""

    result: str | None
    """JSON text of the return value; None when `error` is set."""
    error: TaskError | None
    logs_uri: str | None = None
    warnings: tuple[str, ...] = ()
    """What went wrong without changing the outcome (say, status 1 after a good result). For the log only."""
    account: ResourceUsage | None = None
    """None if no process was started."""
    stdout: CapturedOutput | None = None
    """What the task printed; of an executor that is not ours, its envelope."""
    is_result_on_stdout: bool = False
    """The executor is not ours: what it said on stdout is a result, and not for the log."""
    stderr: CapturedOutput | None = None


class StopReason(enum.Enum):
    """Why an attempt is stopped from outside. The value is the kind of the outcome's error."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The lease is gone: the outcome is dropped, another attempt may be running."""
    SHUTDOWN = "shutdown"
    """The worker ends: the task is released, its attempt not charged."""


class ExecutorSettings(Struct, frozen=True):
    """What an executor needs to know; made once from the configuration."""

    python_bin: str = "python3"
    """A path, or a name looked up in PATH."""
    executor_module: str = "reproq_listen.executor"
    payload_mode: str = "stdin"
    """`stdin`, `file`, or `inline` (refused unless REPROQ_DEV=1)."""
    allowed_task_modules: tuple[str, ...] = ()
    """Prefixes of task paths that may run; see allowlist.py. Empty: none."""
    exec_timeout: timedelta = timedelta(hours=1)
    """Upper bound of every task's own timeout."""
    grace: timedelta = timedelta(seconds=5)
    """From SIGTERM to SIGKILL, and from a result to the end of its process."""
    max_payload_bytes: int = 1 << 20
    preload: tuple[str, ...] = ()
    """Modules that the template imports; modes `fork` and `pool`."""
    memory_bytes: int = 0
    """What a child may have of memory of its own (RLIMIT_DATA); 0: no limit."""
    open_files: int = 0
    """How many open files a child may have unless it asks for more; 0: as many as this process."""
    max_stdout_bytes: int = 1 << 20
    """Also the largest result, by whatever road it comes."""
    kept_stdout_bytes: int = KEPT_FOR_LOG
    """Of what a task prints, for the log: beginning and end. Of an executor that is not ours, all is kept."""
    kept_stderr_bytes: int = KEPT_FOR_LOG
    executor_env: tuple[str, ...] | None = None
    """Names (with a star behind: beginnings of names) that children inherit beside the usual few; None: all."""
    max_tasks_per_child: int = 0
    """Mode `pool`: a child is replaced after so many tasks; 0: never for that."""
    max_memory_per_child_bytes: int = 0
    """Mode `pool`: a child that has more than this in memory after a task is replaced; 0: never for that."""
