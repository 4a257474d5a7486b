"""`reproq-listen cancel`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli.operator import RESULT_ID, required, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
A task that waits ends at once and never starts. A running task is stopped by its worker, which
sends SIGTERM within half a second. If the task ends before that, its result stays.

Usage:
  {program} cancel --id N [options]

Options:
  --id N  Id of the task.
{reason}
{operators}

Exit codes: 0 cancelled, or requested from its worker; 5 it had ended already; 6 the task does not
exist; others as in {program} --help.
"""

_WORDS = {
    "cancelled": "cancelled: it will not start",
    "requested": "requested: its worker will stop it",
    "terminal": "it has ended already",
    "missing": "the task does not exist",
}
_CODES = {"terminal": ExitCode.UNCHANGED, "missing": ExitCode.MISSING}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Cancel, and print the answer."""
    result_id = required(Sources(flags, os.environ), "--id", RESULT_ID)

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        answer = await retry_while_busy(lambda: operator.cancel(result_id))
        output.result({"result_id": result_id, "answer": answer}, f"task {result_id}: {_WORDS.get(answer, answer)}")
        return _CODES.get(answer, ExitCode.OK)

    return run_operator(flags, program, work)
