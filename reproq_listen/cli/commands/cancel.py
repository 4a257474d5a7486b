"""`reproq-listen cancel`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import settings as config
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Cancel a task. One that waits ends at once and never starts; one that runs is stopped by its worker (SIGTERM within half
a second). A result that comes first stays.

Usage:
  {program} cancel --id N [options]

Options:
  --id N            The task.
  --reason TEXT     Why, for the audit log.
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object (text).
  -h --help         Show this.

Exit codes: 0 cancelled, or requested of its worker; 5 it had ended already; 6 there is no such task; else as
{program} --help says.
"""

_WORDS = {
    "cancelled": "cancelled: it will not start",
    "requested": "requested: its worker stops it",
    "terminal": "it has ended already",
    "missing": "there is no such task",
}
_CODES = {"terminal": ExitCode.UNCHANGED, "missing": ExitCode.MISSING}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Cancel, and print the answer."""
    result_id = operate.required(config.Sources(flags, os.environ), "--id", operate.RESULT_ID)

    async def work(operator: Operator, output: Output) -> ExitCode:
        answer = await operate.retry_while_busy(lambda: operator.cancel(result_id))
        output.said({"result_id": result_id, "answer": answer}, f"task {result_id}: {_WORDS.get(answer, answer)}")
        return _CODES.get(answer, ExitCode.OK)

    return operate.run(flags, program, work)
