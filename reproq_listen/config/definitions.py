"""Every setting: flag, variable, key in the file, default. The reference and the example files are made of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from reproq_listen.config import parsers as values
from reproq_listen.config.sources import Setting

PayloadMode = Literal["stdin", "file", "inline"]
ExecutorMode = Literal["spawn", "fork", "pool"]

DEFAULT_ALLOWED_MODULES = ("myapp.tasks.", "tasks.")
OUR_EXECUTOR = "reproq_listen.executor"
REPROQ_EXECUTOR = "reproq_django.executor"
MAX_CONCURRENCY = 1000
MAX_INTERVAL = timedelta(days=7)
MAX_BYTES = 256 << 20
ZERO = timedelta(0)
TICK = timedelta(milliseconds=1)

DSN = Setting(
    "--dsn",
    values.dsn,
    "DATABASE_URL",
    ("dsn", "worker.dsn"),
    secret=True,
    about="the database: a URL or key=value pairs",
)
WORKER_DSN = replace(DSN, keys=("worker.dsn", "dsn"))
BEAT_DSN = replace(DSN, keys=("beat.dsn", "dsn"))
LISTEN_DSN = Setting(
    "--listen-dsn", values.dsn, secret=True, about="where to LISTEN, when the DSN goes through a transaction pooler"
)
SCHEMA = Setting("--schema", values.schema_name, about="the schema of reproq's functions (the search path finds it)")
WORKER_ID = Setting(
    "--worker-id", values.name(255), "WORKER_ID", ("worker.worker_id",), about="name in tables and logs (hostname-pid)"
)
PROCESS_ROLE = Setting(
    "--process-role",
    values.name(255),
    "REPROQ_PROCESS_ROLE",
    ("worker.process_role",),
    about="shown in the log, no more",
)
QUEUES = Setting("--queues", values.queue_names, "QUEUE_NAMES", ("worker.queues",), "default", "queues to work on")
ALLOWED = Setting(
    "--allowed-task-modules",
    values.module_prefixes,
    "ALLOWED_TASK_MODULES",
    ("worker.allowed_task_modules",),
    ",".join(DEFAULT_ALLOWED_MODULES),
    "modules whose tasks may run; * = all; empty = none",
    empty_counts=True,
)
CONCURRENCY = Setting(
    "--concurrency", values.whole_number(1, MAX_CONCURRENCY), None, ("worker.concurrency",), "10", "tasks at a time"
)
POLL_MIN = Setting(
    "--poll-min-backoff",
    values.duration(TICK, MAX_INTERVAL),
    None,
    ("worker.poll_min_backoff",),
    "100ms",
    "without notifications: shortest pause between looks",
)
POLL_MAX = Setting(
    "--poll-max-backoff",
    values.duration(TICK, MAX_INTERVAL),
    None,
    ("worker.poll_max_backoff",),
    "5s",
    "without notifications: longest pause between looks",
)
LEASE = Setting(
    "--lease-seconds",
    values.seconds(timedelta(seconds=1), MAX_INTERVAL),
    None,
    ("worker.lease_seconds",),
    "300",
    "how long a claim holds without renewal",
)
HEARTBEAT = Setting(
    "--heartbeat-seconds",
    values.seconds(timedelta(seconds=0.1), MAX_INTERVAL),
    None,
    ("worker.heartbeat_seconds",),
    "60",
    "renew so often",
)
RECLAIM = Setting(
    "--reclaim-interval-seconds",
    values.seconds(ZERO, MAX_INTERVAL),
    None,
    ("worker.reclaim_interval_seconds",),
    "60",
    "look for leases of dead workers so often; 0 = never",
)
AGING = Setting(
    "--priority-aging-factor",
    values.aging_factor,
    "PRIORITY_AGING_FACTOR",
    ("worker.priority_aging_factor",),
    "60",
    "seconds of waiting that weigh as one step of priority; 0 = off",
)
PYTHON_BIN = Setting(
    "--python-bin",
    values.name(4096),
    None,
    ("worker.python_bin",),
    about="the Python of the tasks (ours; as reproq: python3)",
)
EXECUTOR_MODULE = Setting(
    "--executor-module",
    values.module_name,
    None,
    ("worker.executor_module",),
    about=f"what runs a task ({OUR_EXECUTOR}; as reproq: {REPROQ_EXECUTOR})",
)
EXECUTOR: Setting[ExecutorMode] = Setting(
    "--executor",
    values.executor_mode,
    "REPROQ_EXECUTOR",
    ("worker.executor",),
    about="spawn, fork or pool (fork on Linux, else spawn)",
)
PRELOAD = Setting(
    "--preload",
    values.module_names,
    "REPROQ_PRELOAD",
    ("worker.preload",),
    "",
    "modules that fork and pool import once, before the first task",
)
MAX_TASKS = Setting(
    "--max-tasks-per-child",
    values.whole_number(0, 1_000_000_000),
    "REPROQ_MAX_TASKS_PER_CHILD",
    ("worker.max_tasks_per_child",),
    "0",
    "pool: replace a child after so many tasks; 0 = never",
)
MAX_MEMORY = Setting(
    "--max-memory-per-child",
    values.size,
    "REPROQ_MAX_MEMORY_PER_CHILD",
    ("worker.max_memory_per_child",),
    "0",
    "pool: replace a child that holds more between tasks, such as 512M; 0 = never",
)
TASK_MEMORY = Setting(
    "--max-memory-per-task",
    values.size,
    "REPROQ_MAX_MEMORY_PER_TASK",
    ("worker.max_memory_per_task",),
    "0",
    "allocations of a child beyond this fail, such as 2G; 0 = no limit (Linux)",
)
EXECUTOR_ENV = Setting(
    "--executor-env",
    values.variable_names,
    "REPROQ_EXECUTOR_ENV",
    ("worker.executor_env",),
    about="variables that tasks get beside the usual few, such as AWS_*,DJANGO_SETTINGS_MODULE (all but METRICS_*)",
    empty_counts=True,
)
PAYLOAD_MODE: Setting[PayloadMode] = Setting(
    "--payload-mode",
    values.payload_mode,
    None,
    ("worker.payload_mode",),
    "stdin",
    "stdin, file or inline (development only)",
)
MAX_PAYLOAD = Setting(
    None, values.whole_number(1, MAX_BYTES), None, ("worker.max_payload_bytes",), "1048576", "largest spec of a task"
)
MAX_STDOUT = Setting(
    None,
    values.whole_number(1, MAX_BYTES),
    None,
    ("worker.max_stdout_bytes",),
    "1048576",
    "largest result; kept of stdout",
)
MAX_STDERR = Setting(
    None,
    values.whole_number(1, MAX_BYTES),
    None,
    ("worker.max_stderr_bytes",),
    "1048576",
    "kept of stderr in log files",
)
LOGS_DIR = Setting(
    "--logs-dir",
    values.name(4096),
    "REPROQ_LOGS_DIR",
    ("worker.logs_dir",),
    about="keep each attempt's output in a file here",
)
EXEC_TIMEOUT = Setting(
    "--exec-timeout",
    values.duration(TICK, timedelta(days=365)),
    None,
    ("worker.exec_timeout",),
    "1h",
    "the longest any task may run",
)
MAX_ATTEMPTS = Setting(
    None,
    values.whole_number(1, 2**31 - 1),
    None,
    ("worker.max_attempts_default",),
    "3",
    "accepted, without effect: each task has a number of its own",
)
SHUTDOWN = Setting(
    "--shutdown-timeout",
    values.duration(ZERO, MAX_INTERVAL),
    None,
    ("worker.shutdown_timeout",),
    "30s",
    "after a signal, let tasks run on for so long",
)
GRACE = Setting(
    "--grace-seconds",
    values.seconds(ZERO, timedelta(hours=1)),
    "REPROQ_GRACE_SECONDS",
    ("worker.grace_seconds",),
    "5",
    "from SIGTERM to SIGKILL for a task",
)
MEMORY_LOG = Setting(
    None,
    values.duration_or_seconds(timedelta(seconds=1), MAX_INTERVAL),
    "REPROQ_MEMORY_LOG_INTERVAL",
    about="log the memory in use so often, as in 60 (seconds) or 5m; 0 = never",
)
BEAT_INTERVAL = Setting(
    "--interval",
    values.duration(timedelta(seconds=0.1), MAX_INTERVAL),
    None,
    ("beat.interval",),
    "30s",
    "beat: look at the schedules at least so often",
)
ADDR = Setting(
    "--metrics-addr", values.address, "METRICS_ADDR", ("metrics.addr",), about="host:port to serve HTTP on; :port = all"
)
PORT = Setting(
    "--metrics-port",
    values.whole_number(0, 65535),
    None,
    ("metrics.port",),
    "0",
    "port to serve HTTP on, on all interfaces, instead of an address from a weaker source; 0 = no HTTP",
)
AUTH_TOKEN = Setting(
    "--metrics-auth-token",
    values.token,
    "METRICS_AUTH_TOKEN",
    ("metrics.auth_token",),
    about="bearer token to ask for",
    secret=True,
)
ALLOW_CIDRS = Setting(
    "--metrics-allow-cidrs",
    values.networks,
    "METRICS_ALLOW_CIDRS",
    ("metrics.allow_cidrs",),
    about="addresses and networks that may connect (all)",
)
TLS_CERT = Setting(
    "--metrics-tls-cert", values.name(4096), "METRICS_TLS_CERT", ("metrics.tls_cert",), about="certificate chain, PEM"
)
TLS_KEY = Setting("--metrics-tls-key", values.name(4096), "METRICS_TLS_KEY", ("metrics.tls_key",), about="its key, PEM")
TLS_CLIENT_CA = Setting(
    "--metrics-tls-client-ca",
    values.name(4096),
    "METRICS_TLS_CLIENT_CA",
    ("metrics.tls_client_ca",),
    about="CA that client certificates must come from",
)
AUTH_LIMIT = Setting(
    "--metrics-auth-limit",
    values.whole_number(1, 1_000_000),
    "METRICS_AUTH_LIMIT",
    ("metrics.auth_limit",),
    "30",
    "wrong tokens a host may send in a window: then 429",
)
AUTH_WINDOW = Setting(
    "--metrics-auth-window",
    values.duration(timedelta(seconds=1), MAX_INTERVAL),
    "METRICS_AUTH_WINDOW",
    ("metrics.auth_window",),
    "1m",
    "that window",
)
AUTH_MAX_ENTRIES = Setting(
    "--metrics-auth-max-entries",
    values.whole_number(1, 1_000_000),
    "METRICS_AUTH_MAX_ENTRIES",
    ("metrics.auth_max_entries",),
    "1000",
    "hosts remembered for that",
)
LOW_MEMORY = Setting(None, values.switch, "LOW_MEMORY_MODE", (), "0", "1: no HTTP server, whatever else is set")

WORKER = (
    *(WORKER_DSN, LISTEN_DSN, SCHEMA, WORKER_ID, PROCESS_ROLE, QUEUES, ALLOWED, CONCURRENCY, POLL_MIN, POLL_MAX, LEASE),
    *(HEARTBEAT, RECLAIM, AGING, PYTHON_BIN, EXECUTOR_MODULE, EXECUTOR, PRELOAD, MAX_TASKS, MAX_MEMORY),
    *(TASK_MEMORY, EXECUTOR_ENV, PAYLOAD_MODE, MAX_PAYLOAD, MAX_STDOUT, MAX_STDERR),
    *(LOGS_DIR, EXEC_TIMEOUT, MAX_ATTEMPTS, SHUTDOWN, GRACE, MEMORY_LOG),
)
BEAT = (BEAT_DSN, BEAT_INTERVAL)
METRICS = (
    *(ADDR, PORT, AUTH_TOKEN, ALLOW_CIDRS, TLS_CERT, TLS_KEY, TLS_CLIENT_CA, AUTH_LIMIT, AUTH_WINDOW, AUTH_MAX_ENTRIES),
    LOW_MEMORY,
)
ALL: tuple[Setting[Any], ...] = (DSN, *WORKER, *BEAT, *METRICS)
KEYS = frozenset(key for setting in ALL for key in setting.keys)
