"""Every setting, once: flag, variable, keys in the file, default, help text, and the commands that have the flag.

Help texts, example files, reference and the objects in `settings.py` are made from these definitions.
To add a setting, define it here; a value that the worker reads gets a field in `settings.py`, too.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

from reproq_listen.config import parsers
from reproq_listen.config.sources import Setting

PayloadMode = Literal["stdin", "file", "inline"]
ExecutorMode = Literal["spawn", "fork", "pool"]

DEFAULT_ALLOWED_MODULES = ("myapp.tasks.", "tasks.")
OUR_EXECUTOR = "reproq_listen.executor"
REPROQ_EXECUTOR = "reproq_django.executor"
MAX_CONCURRENCY = 1000
MAX_INTERVAL = timedelta(days=7)
MAX_BYTES = 256 << 20
MAX_PATH_BYTES = 4096
MAX_HEARTBEAT_AGE = timedelta(minutes=5)  # reproq_live_workers shows no older ones
TICK = timedelta(milliseconds=1)
SECOND = timedelta(seconds=1)
ZERO = timedelta(0)

OPERATORS = "operators"
"""In `used_by`: all commands that ask a database one question or give it one order."""

_DATABASE = "Database"
_WHAT = "What to run"
_HOW = "How to run it"
_TIMES = "Times"
_IDENTITY = "Identity"
_FILES = "Files"
_HTTP = "HTTP (/metrics, /healthz, /livez, /readyz, /events), off unless an address or a port is given"

DSN = Setting(
    flag="--dsn",
    metavar="DSN",
    variable="DATABASE_URL",
    keys=("dsn", "worker.dsn"),
    sample="postgresql://me@localhost/mydb",
    parse=parsers.dsn,
    is_secret=True,
    help="Database: a postgresql:// URL or key=value pairs, with one or several hosts.",
    group=_DATABASE,
    used_by=(OPERATORS, "torture"),
)
WORKER_DSN = replace(DSN, keys=("worker.dsn", "dsn"), used_by=("worker", "doctor", "health"))
BEAT_DSN = replace(DSN, keys=("beat.dsn", "dsn"), used_by=("beat",))
LISTEN_DSN = Setting(
    flag="--listen-dsn",
    metavar="DSN",
    default_note="the same as --dsn",
    sample="postgresql://me@db.internal/mydb",
    parse=parsers.dsn,
    is_secret=True,
    help="Database address for LISTEN, when --dsn goes through a transaction pooler.",
    group=_DATABASE,
    used_by=("worker", "beat", "doctor"),
)
SCHEMA = Setting(
    flag="--schema",
    metavar="NAME",
    default_note="found through the search path",
    sample="jobs",
    parse=parsers.name(63),
    help="Schema that holds reproq's functions.",
    group=_DATABASE,
    used_by=("worker", "beat", "doctor", "health", "torture", OPERATORS),
)
EMBEDDED = Setting(
    flag="--embedded",
    default="0",
    sample="1",
    parse=parsers.switch,
    help="Start an embedded PostgreSQL, migrate it and work on it. The event worker_started has its DSN. "
    "Needs reproq-listen[embedded].",
    group=_DATABASE,
    used_by=("worker",),
)
QUEUES = Setting(
    flag="--queues",
    metavar="LIST",
    variable="QUEUE_NAMES",
    keys=("worker.queues",),
    default="default",
    sample="mail,reports",
    parse=parsers.queue_names,
    is_list=True,
    help="Queues to work on, separated by commas.",
    group=_WHAT,
    used_by=("worker",),
)
CONCURRENCY = Setting(
    flag="--concurrency",
    metavar="N",
    keys=("worker.concurrency",),
    default="10",
    sample="4",
    parse=parsers.whole_number(1, MAX_CONCURRENCY),
    help=f"Number of tasks that run at the same time, 1 to {MAX_CONCURRENCY}.",
    group=_WHAT,
    used_by=("worker", "torture"),
)
ALLOWED = Setting(
    flag="--allowed-task-modules",
    metavar="LIST",
    variable="ALLOWED_TASK_MODULES",
    keys=("worker.allowed_task_modules",),
    default=",".join(DEFAULT_ALLOWED_MODULES),
    sample="shop.tasks",
    parse=parsers.module_prefixes,
    is_list=True,
    help="Modules whose tasks may run, separated by commas. * allows all, for development only; empty allows none.",
    group=_WHAT,
    used_by=("worker", "doctor"),
    empty_counts=True,
)
AGING = Setting(
    flag="--priority-aging-factor",
    metavar="SECONDS",
    variable="PRIORITY_AGING_FACTOR",
    keys=("worker.priority_aging_factor",),
    default="60",
    sample="300",
    parse=parsers.aging_factor,
    help="Seconds of waiting that raise the effective priority of a task by one; 0 = off.",
    group=_WHAT,
    used_by=("worker",),
)
WITH_BEAT = Setting(
    flag="--beat",
    default="0",
    sample="1",
    parse=parsers.switch,
    help="Also enqueue the runs of schedules, as the command beat does.",
    group=_WHAT,
    used_by=("worker",),
)
DRAIN = Setting(
    flag="--drain",
    default="0",
    sample="1",
    parse=parsers.switch,
    help="Exit when no task runs and none is claimable or due within 60 s.",
    group=_WHAT,
    used_by=("worker",),
)
PYTHON_BIN = Setting(
    flag="--python-bin",
    metavar="PATH",
    keys=("worker.python_bin",),
    default_note="the Python of this program; under the name reproq: python3",
    sample="python3",
    parse=parsers.name(MAX_PATH_BYTES),
    help="Python that runs the tasks.",
    group=_HOW,
    used_by=("worker", "doctor"),
)
EXECUTOR_MODULE = Setting(
    flag="--executor-module",
    metavar="MODULE",
    keys=("worker.executor_module",),
    default_note=f"{OUR_EXECUTOR}; under the name reproq: {REPROQ_EXECUTOR}",
    sample=OUR_EXECUTOR,
    parse=parsers.module_name,
    help="Module that python -m starts for each task.",
    group=_HOW,
    used_by=("worker", "doctor"),
)
EXECUTOR: Setting[ExecutorMode] = Setting(
    flag="--executor",
    metavar="MODE",
    variable="REPROQ_EXECUTOR",
    keys=("worker.executor",),
    default_note="fork on Linux, else spawn",
    sample="spawn",
    parse=parsers.one_of("spawn", "fork", "pool"),
    help="How to start tasks. spawn: a new Python for each task. fork: a copy of a process that has imported the "
    "application. pool: processes that run many tasks each.",
    group=_HOW,
    used_by=("worker", "torture"),
)
PRELOAD = Setting(
    flag="--preload",
    metavar="LIST",
    variable="REPROQ_PRELOAD",
    keys=("worker.preload",),
    default="",
    sample="shop.tasks",
    parse=parsers.module_names,
    is_list=True,
    help="Modules that fork and pool import once, before the first task. The Django project that "
    "DJANGO_SETTINGS_MODULE names is imported without being listed.",
    group=_HOW,
    used_by=("worker",),
)
MAX_TASKS = Setting(
    flag="--max-tasks-per-child",
    metavar="N",
    variable="REPROQ_MAX_TASKS_PER_CHILD",
    keys=("worker.max_tasks_per_child",),
    default="0",
    sample="1000",
    parse=parsers.whole_number(0, 1_000_000_000),
    help="With pool: number of tasks after which a child is replaced; 0 = never.",
    group=_HOW,
    used_by=("worker",),
)
MAX_MEMORY = Setting(
    flag="--max-memory-per-child",
    metavar="SIZE",
    variable="REPROQ_MAX_MEMORY_PER_CHILD",
    keys=("worker.max_memory_per_child",),
    default="0",
    sample="512M",
    parse=parsers.size,
    help="With pool: memory between two tasks above which a child is replaced, such as 512M; 0 = never.",
    group=_HOW,
    used_by=("worker",),
)
TASK_MEMORY = Setting(
    flag="--max-memory-per-task",
    metavar="SIZE",
    variable="REPROQ_MAX_MEMORY_PER_TASK",
    keys=("worker.max_memory_per_task",),
    default="0",
    sample="2G",
    parse=parsers.size,
    help="Memory that a task's process may allocate, such as 2G; beyond it allocations fail. 0 = no limit. Linux only.",
    group=_HOW,
    used_by=("worker",),
)
EXECUTOR_ENV = Setting(
    flag="--executor-env",
    metavar="LIST",
    variable="REPROQ_EXECUTOR_ENV",
    keys=("worker.executor_env",),
    default_note="all except METRICS_*",
    sample="AWS_*,DJANGO_SETTINGS_MODULE",
    parse=parsers.variable_names,
    is_list=True,
    help="Environment variables to pass to tasks, in addition to PATH, HOME, LANG, TZ, PYTHON* and similar ones. A * "
    "at the end of a name stands for any rest.",
    group=_HOW,
    used_by=("worker",),
    empty_counts=True,
)
PAYLOAD_MODE: Setting[PayloadMode] = Setting(
    flag="--payload-mode",
    metavar="MODE",
    keys=("worker.payload_mode",),
    default="stdin",
    sample="file",
    parse=parsers.one_of("stdin", "file", "inline"),
    help="How to pass a task its arguments: stdin, file, or inline (development only).",
    group=_HOW,
    used_by=("worker",),
)
MAX_PAYLOAD = Setting(
    keys=("worker.max_payload_bytes",),
    default="1048576",
    sample="65536",
    parse=parsers.whole_number(1, MAX_BYTES),
    help="Largest spec of a task, in bytes.",
)
MAX_STDOUT = Setting(
    keys=("worker.max_stdout_bytes",),
    default="1048576",
    sample="65536",
    parse=parsers.whole_number(1, MAX_BYTES),
    help="Largest result of a task, and how much of its stdout a log file keeps, in bytes.",
)
MAX_STDERR = Setting(
    keys=("worker.max_stderr_bytes",),
    default="1048576",
    sample="65536",
    parse=parsers.whole_number(1, MAX_BYTES),
    help="How much of a task's stderr a log file keeps, in bytes.",
)
EXEC_TIMEOUT = Setting(
    flag="--exec-timeout",
    metavar="DURATION",
    keys=("worker.exec_timeout",),
    default="1h",
    sample="10m",
    parse=parsers.duration(TICK, timedelta(days=365)),
    help="Longest time that any task may run, also one with a longer timeout of its own.",
    group=_HOW,
    used_by=("worker",),
)
MAX_ATTEMPTS = Setting(
    keys=("worker.max_attempts_default",),
    default="3",
    sample="5",
    parse=parsers.whole_number(1, parsers.MAX_INTEGER),
    help="Accepted for compatibility, without effect: each task has its own max_attempts.",
)
LEASE = Setting(
    flag="--lease-seconds",
    metavar="N",
    keys=("worker.lease_seconds",),
    default="300",
    sample="120",
    parse=parsers.seconds(SECOND, MAX_INTERVAL),
    help="How long a claim holds without renewal, in seconds.",
    group=_TIMES,
    used_by=("worker",),
)
HEARTBEAT = Setting(
    flag="--heartbeat-seconds",
    metavar="N",
    keys=("worker.heartbeat_seconds",),
    default="60",
    sample="20",
    parse=parsers.seconds_or_default(timedelta(seconds=0.1), MAX_INTERVAL),
    help="How often to renew leases, in seconds; at least every 30 s and three times per lease in any case. "
    "0 = the default.",
    group=_TIMES,
    used_by=("worker",),
)
RECLAIM = Setting(
    flag="--reclaim-interval-seconds",
    metavar="N",
    keys=("worker.reclaim_interval_seconds",),
    default="60",
    sample="30",
    parse=parsers.seconds(ZERO, MAX_INTERVAL),
    help="How often to look for expired leases of dead workers, in seconds; 0 = never.",
    group=_TIMES,
    used_by=("worker",),
)
POLL_MIN = Setting(
    flag="--poll-min-backoff",
    metavar="DURATION",
    keys=("worker.poll_min_backoff",),
    default="100ms",
    sample="200ms",
    parse=parsers.duration(TICK, MAX_INTERVAL),
    help="Shortest pause between two polls while LISTEN does not work.",
    group=_TIMES,
    used_by=("worker",),
)
POLL_MAX = Setting(
    flag="--poll-max-backoff",
    metavar="DURATION",
    keys=("worker.poll_max_backoff",),
    default="5s",
    sample="10s",
    parse=parsers.duration(TICK, MAX_INTERVAL),
    help="Longest pause between two polls while LISTEN does not work.",
    group=_TIMES,
    used_by=("worker",),
)
SHUTDOWN = Setting(
    flag="--shutdown-timeout",
    metavar="DURATION",
    keys=("worker.shutdown_timeout",),
    default="30s",
    sample="1m",
    parse=parsers.duration(ZERO, MAX_INTERVAL),
    help="How long running tasks may continue after SIGTERM or SIGINT.",
    group=_TIMES,
    used_by=("worker",),
)
GRACE = Setting(
    flag="--grace-seconds",
    metavar="N",
    variable="REPROQ_GRACE_SECONDS",
    keys=("worker.grace_seconds",),
    default="5",
    sample="10",
    parse=parsers.seconds(ZERO, timedelta(hours=1)),
    help="Time between SIGTERM and SIGKILL for a task, in seconds; at most a quarter of the lease.",
    group=_TIMES,
    used_by=("worker",),
)
BEAT_INTERVAL = Setting(
    flag="--interval",
    metavar="DURATION",
    keys=("beat.interval",),
    default="30s",
    sample="10s",
    parse=parsers.duration(timedelta(seconds=0.1), MAX_INTERVAL),
    help="How often to look at the schedules at least, in case a notification is lost.",
    group=_TIMES,
    used_by=("beat",),
)
ONCE = Setting(
    flag="--once",
    default="0",
    sample="1",
    parse=parsers.switch,
    help="Enqueue what is due now, print the counts, and exit.",
    group=_WHAT,
    used_by=("beat",),
)
WORKER_ID = Setting(
    flag="--worker-id",
    metavar="NAME",
    variable="WORKER_ID",
    keys=("worker.worker_id",),
    default_note="hostname-pid",
    sample="worker-1",
    parse=parsers.name(255),
    help="Name of the worker in tables and logs.",
    group=_IDENTITY,
    used_by=("worker", "health"),
)
PROCESS_ROLE = Setting(
    flag="--process-role",
    metavar="ROLE",
    variable="REPROQ_PROCESS_ROLE",
    keys=("worker.process_role",),
    sample="batch",
    parse=parsers.name(255),
    help="Label to show in the log.",
    group=_IDENTITY,
    used_by=("worker",),
)
WITHIN = Setting(
    flag="--within",
    metavar="DURATION",
    default_note="three heartbeats and ten seconds",
    sample="1m",
    parse=parsers.duration(SECOND, MAX_HEARTBEAT_AGE),
    help="Largest age of the last heartbeat, at most 5m.",
    used_by=("health",),
)
REASON = Setting(
    flag="--reason",
    metavar="TEXT",
    sample="ticket 42",
    parse=parsers.name(1000),
    help="Reason to keep in the audit log.",
)
CONFIG = Setting(
    flag="--config",
    metavar="PATH",
    variable="REPROQ_CONFIG",
    default_note="reproq.yaml, reproq.yml or reproq.toml in the working directory, also with a dot in front",
    sample="/etc/reproq.yaml",
    parse=str,
    help="Configuration file, YAML or TOML.",
    group=_FILES,
    used_by=("worker", "beat", "doctor", "health", "config", "torture", OPERATORS),
)
LOGS_DIR = Setting(
    flag="--logs-dir",
    metavar="DIR",
    variable="REPROQ_LOGS_DIR",
    keys=("worker.logs_dir",),
    sample="/var/log/reproq",
    parse=parsers.name(MAX_PATH_BYTES),
    help="Directory that keeps the output of each attempt, one file per attempt.",
    group=_FILES,
    used_by=("worker",),
)
OUTPUT = Setting(
    flag="--output",
    metavar="FORMAT",
    default="text",
    sample="json",
    parse=parsers.one_of("text", "json"),
    help="Format of the output: text, or json with one object per line.",
    used_by=("beat", "doctor", "health", "config", "torture", "version", OPERATORS),
)
ADDR = Setting(
    flag="--metrics-addr",
    metavar="ADDR",
    variable="METRICS_ADDR",
    keys=("metrics.addr",),
    sample="127.0.0.1:9090",
    parse=parsers.host_port,
    help="Address to serve HTTP on: host:port, or :port for all interfaces.",
    group=_HTTP,
    used_by=("worker", "health"),
)
PORT = Setting(
    flag="--metrics-port",
    metavar="PORT",
    keys=("metrics.port",),
    default="0",
    sample="9464",
    parse=parsers.whole_number(0, 65535),
    help="Port to serve HTTP on, on all interfaces; 0 = off. Replaces the port of an address from a weaker source, "
    "such as METRICS_ADDR; its host stays.",
    group=_HTTP,
    used_by=("worker", "health"),
)
AUTH_TOKEN = Setting(
    flag="--metrics-auth-token",
    metavar="TOKEN",
    variable="METRICS_AUTH_TOKEN",
    keys=("metrics.auth_token",),
    sample="change-me",
    parse=parsers.token,
    is_secret=True,
    help="Bearer token that clients must send. Safer in a file, named by METRICS_AUTH_TOKEN_FILE.",
    group=_HTTP,
    used_by=("worker",),
)
ALLOW_CIDRS = Setting(
    flag="--metrics-allow-cidrs",
    metavar="LIST",
    variable="METRICS_ALLOW_CIDRS",
    keys=("metrics.allow_cidrs",),
    default_note="all",
    sample="10.0.0.0/8,::1",
    parse=parsers.networks,
    is_list=True,
    help="Addresses and networks that may connect, separated by commas. localhost = all loopback addresses.",
    group=_HTTP,
    used_by=("worker",),
)
TLS_CERT = Setting(
    flag="--metrics-tls-cert",
    metavar="PATH",
    variable="METRICS_TLS_CERT",
    keys=("metrics.tls_cert",),
    sample="/etc/reproq/tls.crt",
    parse=parsers.name(MAX_PATH_BYTES),
    help="Certificate chain for TLS, a PEM file.",
    group=_HTTP,
    used_by=("worker", "health"),
)
TLS_KEY = Setting(
    flag="--metrics-tls-key",
    metavar="PATH",
    variable="METRICS_TLS_KEY",
    keys=("metrics.tls_key",),
    sample="/etc/reproq/tls.key",
    parse=parsers.name(MAX_PATH_BYTES),
    help="Private key of the certificate, a PEM file.",
    group=_HTTP,
    used_by=("worker", "health"),
)
TLS_CLIENT_CA = Setting(
    flag="--metrics-tls-client-ca",
    metavar="PATH",
    variable="METRICS_TLS_CLIENT_CA",
    keys=("metrics.tls_client_ca",),
    sample="/etc/reproq/clients.crt",
    parse=parsers.name(MAX_PATH_BYTES),
    help="CA that client certificates must come from, a PEM file. Without it clients need no certificate.",
    group=_HTTP,
    used_by=("worker", "health"),
)
AUTH_LIMIT = Setting(
    flag="--metrics-auth-limit",
    metavar="N",
    variable="METRICS_AUTH_LIMIT",
    keys=("metrics.auth_limit",),
    default="30",
    sample="10",
    parse=parsers.whole_number(1, 1_000_000),
    help="Number of wrong tokens that a host may send within --metrics-auth-window; then it gets status 429.",
    group=_HTTP,
    used_by=("worker",),
)
AUTH_WINDOW = Setting(
    flag="--metrics-auth-window",
    metavar="DURATION",
    variable="METRICS_AUTH_WINDOW",
    keys=("metrics.auth_window",),
    default="1m",
    sample="5m",
    parse=parsers.duration(SECOND, MAX_INTERVAL),
    help="Time for which wrong tokens are counted.",
    group=_HTTP,
    used_by=("worker",),
)
AUTH_MAX_ENTRIES = Setting(
    flag="--metrics-auth-max-entries",
    metavar="N",
    variable="METRICS_AUTH_MAX_ENTRIES",
    keys=("metrics.auth_max_entries",),
    default="1000",
    sample="500",
    parse=parsers.whole_number(1, 1_000_000),
    help="Number of hosts whose wrong tokens are counted.",
    group=_HTTP,
    used_by=("worker",),
)
LOW_MEMORY = Setting(
    variable="LOW_MEMORY_MODE",
    default="0",
    sample="1",
    parse=parsers.switch,
    help="1 = no HTTP server, even with an address or a port.",
)
MEMORY_LOG = Setting(
    variable="REPROQ_MEMORY_LOG_INTERVAL",
    sample="5m",
    default_note="never",
    parse=parsers.interval_or_never(SECOND, MAX_INTERVAL),
    help="How often to log the memory in use, such as 60 (seconds) or 5m; 0 or off = never.",
)

ALL: tuple[Setting[Any], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Setting))
"""In the order above, which is that of help texts, reference and example files."""
SHOWN = tuple(setting for setting in ALL if setting is not DSN)
"""What reference and `config --explain` show. WORKER_DSN and BEAT_DSN have all that DSN has."""
KEYS = frozenset(key for setting in ALL for key in setting.keys)
