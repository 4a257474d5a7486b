"""`reproq-listen worker`: runs tasks until it is stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.config import settings as config
from reproq_listen.db.session import START_LIMIT
from reproq_listen.errors import ExitCode
from reproq_listen.worker.service import run_worker

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
    return run_worker(settings, program, config.warnings(sources))
