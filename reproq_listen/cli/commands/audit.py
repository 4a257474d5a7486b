"""`reproq-listen audit`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli.operator import given, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Latest first: when, who, from where, what, and why if a reason was given (--reason, or in SQL set
reproq.reason = '...').

Usage:
  {program} audit [options]

Options:
  --limit N  Largest number of rows. (default: 50)
{operators}

Exit codes: as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the latest rows."""
    limit = given(Sources(flags, os.environ), "--limit", parsers.whole_number(1, 100_000)) or 50

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        output.rows(await operator.audit(limit), ("at", "who", "origin", "what", "details", "why"))
        return ExitCode.OK

    return run_operator(flags, program, work)
