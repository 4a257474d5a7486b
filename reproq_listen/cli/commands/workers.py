"""`reproq-listen workers`."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen.cli.operator import run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Shows live workers, and those not seen for five minutes.

Usage:
  {program} workers ls [options]

Options:
{operators}

Exit codes: as in {program} --help.
"""

COLUMNS = ("worker_id", "alive", "silent", "running", "concurrency", "queues", "version", "started_at")


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the workers."""
    return run_operator(flags, program, _ls)


async def _ls(operator: Operator, output: CommandOutput) -> ExitCode:
    output.rows(await operator.workers(), COLUMNS, nothing="no workers")
    return ExitCode.OK
