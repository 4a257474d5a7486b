"""The values that the database, the worker and the executors share. They have no behaviour."""

import enum
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from msgspec import Struct

KEPT_FOR_LOG = 64 << 10
"""Bytes kept of each output stream of a task when only the log shows them."""


class ClaimedTask(Struct, frozen=True):
    """One row of `reproq_claim`: a task and the lease under which this process may run it.

    `(result_id, lease_token)` is the fence: every later write names both.
    """

    result_id: int
    lease_token: UUID
    queue_name: str
    priority: int
    task_path: str | None
    """The column. The path in `spec` is the one that runs; a task with two different paths is refused."""
    spec: str
    """`spec_json` as PostgreSQL prints it, given to the executor unchanged."""
    attempts: int
    max_attempts: int
    timeout_seconds: int
    """0 or less: the task has no limit of its own, only the worker's `exec_timeout`."""
    enqueued_at: datetime
    waited: timedelta
    lost_count: int
    limit_key: str = ""
    ready_since: str = ""
    """An instant in ISO 8601. With queue, limit key and priority: the place of the task in its stream."""


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
    """The signal that ended the process, such as `SIGSEGV`."""
    crash_class: str | None = None
    """Why the process ended without a result: `oom` (also when an allocation failed inside it), `signal`, `exit` or
    `timeout`."""
    stderr_tail: str | None = None
    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_rss_bytes: int | None = None
    after_seconds: float | None = None
    """What the task asked for: it is due again after this time."""
    until: str | None = None
    """Likewise; an instant in the notation of ISO 8601."""


class ResourceUsage(Struct, frozen=True, omit_defaults=True):
    """Time and memory that an attempt used, for `metadata_json.reproq`."""

    wall_seconds: float
    cpu_seconds: float
    """Of its process and of the children that it waited for."""
    peak_rss_bytes: int | None = None
    """Of the process. A forked one includes memory shared with its forkserver. A spawned one is never less than this
    worker's own, which Linux counts until the exec."""
    exit_status: int | None = None
    signal: str | None = None


class CapturedOutput(Struct, frozen=True):
    """Beginning and end of an output stream. They are the whole stream if their lengths add up to `total`."""

    head: bytes
    tail: bytes
    total: int


class Outcome(Struct, frozen=True):
    """How an attempt ended. `error` is None exactly when the task succeeded."""

    result: str | None
    """JSON text of the return value; None when `error` is set."""
    error: TaskError | None
    follow_ups: str | None = None
    """JSON array of tasks to enqueue together with the success; None: none."""
    logs_uri: str | None = None
    warnings: tuple[str, ...] = ()
    """Problems that did not change the outcome (say, status 1 after a good result). For the log only."""
    usage: ResourceUsage | None = None
    """None if no process was started."""
    stdout: CapturedOutput | None = None
    """The task's output; from an executor that is not ours, its envelope."""
    is_result_on_stdout: bool = False
    """The executor is not ours: its stdout is a result, which is never logged."""
    stderr: CapturedOutput | None = None


class StopReason(enum.Enum):
    """Why an attempt is stopped from outside. The value is the kind of the outcome's error."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The lease is over: the outcome is dropped, another attempt may be running."""
    SHUTDOWN = "shutdown"
    """The worker ends: the task is given back, its attempt not charged."""


class ForkserverTimings(Struct, frozen=True):
    """How long the worker waits for a forkserver, in seconds."""

    boot_seconds: float = 120.0
    """For its imports."""
    wait_seconds: float = 30.0
    """A task waits this long for a forkserver that is being started again; then it is given back."""
    answer_seconds: float = 15.0
    """For an answer. It only forks and reaps, so one that is slower is stopped or lost, and is killed."""
    close_seconds: float = 5.0
    """For its end, before it is killed."""


class ExecutorSettings(Struct, frozen=True):
    """The settings of an executor, made once from the configuration."""

    python_bin: str = "python3"
    """A path, or a name looked up in PATH."""
    executor_module: str = "reproq_listen.executor"
    payload_mode: Literal["stdin", "file", "inline"] = "stdin"
    allowed_task_modules: tuple[str, ...] = ()
    """Prefixes of task paths that may run; see allowlist.py. Empty: none."""
    exec_timeout: timedelta = timedelta(hours=1)
    """Upper bound of every task's own timeout."""
    grace: timedelta = timedelta(seconds=5)
    """From SIGTERM to SIGKILL, and from a result to the end of its process."""
    max_payload_bytes: int = 1 << 20
    preload: tuple[str, ...] = ()
    """Modules that the forkserver imports; modes `fork` and `pool`."""
    memory_bytes: int = 0
    """Limit of a child's private memory (RLIMIT_DATA); 0: no limit."""
    open_files: int = 0
    """Soft limit of a child's open files, which it may raise; 0: as this process."""
    max_stdout_bytes: int = 1 << 20
    """Also the size of the largest result, on whatever channel it comes."""
    kept_stdout_bytes: int = KEPT_FOR_LOG
    """Of a task's stdout, for the log: beginning and end. Of an executor that is not ours, all is kept."""
    kept_stderr_bytes: int = KEPT_FOR_LOG
    executor_env: tuple[str, ...] | None = None
    """Variables that children inherit in addition to the usual few; a star at the end makes a prefix. None: all."""
    database_url: str | None = None
    """DATABASE_URL of the tasks; None: as this process has it, or none."""
    children_ahead: int = 1
    """Mode `fork`: children that are forked before there is a task for them."""
    max_tasks_per_child: int = 0
    """Mode `pool`: a child is replaced after this number of tasks; 0: no limit."""
    max_memory_per_child_bytes: int = 0
    """Mode `pool`: a child with more resident memory than this after a task is replaced; 0: no limit."""
    max_child_age: timedelta = timedelta(hours=1)
    """Mode `pool`: a child that is older is replaced after a task."""
    forkserver_timings: ForkserverTimings = ForkserverTimings()
    """Modes `fork` and `pool`."""
