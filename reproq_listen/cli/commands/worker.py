"""`reproq-listen worker`: runs tasks until it is stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.config.settings import read_sources, warnings, worker_settings_of
from reproq_listen.db.session import START_LIMIT
from reproq_listen.errors import ExitCode
from reproq_listen.worker.service import run_worker

USAGE = """
A flag overrides an environment variable, a variable overrides the configuration file, and the file
overrides the default. Variable and default are in brackets.

Usage:
  {program} worker [options]

{worker}

`{program} config --reference` lists all settings with their variables, keys and defaults.
DATABASE_URL_FILE and METRICS_AUTH_TOKEN_FILE name files that hold these secrets. LOW_MEMORY_MODE=1
turns the HTTP server off.

Signals:
  SIGTERM, SIGINT  Stop claiming and wait up to --shutdown-timeout for running tasks. Then give back
                   those that still run; their attempts are not counted. A second signal: stop now.
  SIGQUIT          Stop now.
  SIGHUP           Start later tasks with the code that is on disk now.

Where the worker may create a cgroup (version 2; as root, or with Delegate=yes in a systemd unit),
no process that a task starts outlives the worker. The event worker_started names the cgroup, or the
reason why there is none.

Exit codes: 0 stopped or drained; 1 failed; 2 wrong flag or setting; 3 no reproq schema, or another
version of it; 4 the database did not answer within {start_limit} s of the start (later the worker
waits for its database without limit); 7 the template process of fork or pool could not import the
application.
""".replace("{start_limit}", f"{START_LIMIT:g}")


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Check the settings, then work. Raises ReproqError."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    settings = worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    return run_worker(settings, program, warnings(sources))
