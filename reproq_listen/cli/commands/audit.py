"""`reproq-listen audit`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Show what operators did, latest first: when, who, from where, what, and why if they said (--reason, or in SQL
set reproq.reason = '...').

Usage:
  {program} audit [options]

Options:
  --limit N         So many rows at most (50).
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object a line (text).
  -h --help         Show this.

Exit codes: as {program} --help says.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the latest rows."""
    limit = operate.given(config.Sources(flags, os.environ), "--limit", values.whole_number(1, 100_000)) or 50

    async def work(operator: Operator, output: Output) -> ExitCode:
        output.rows(await operator.audit(limit), ("at", "who", "origin", "what", "details", "why"))
        return ExitCode.OK

    return operate.run(flags, program, work)
