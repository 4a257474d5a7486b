"""`reproq-listen workers`."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Show the workers: those that live, and those not seen for five minutes.

Usage:
  {program} workers ls [options]

Options:
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object a line (text).
  -h --help         Show this.

Exit codes: as {program} --help says.
"""

COLUMNS = ("worker_id", "alive", "silent", "running", "concurrency", "queues", "version", "started_at")


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the workers."""
    return operate.run(flags, program, _ls)


async def _ls(operator: Operator, output: Output) -> ExitCode:
    output.rows(await operator.workers(), COLUMNS, nothing="no workers")
    return ExitCode.OK
