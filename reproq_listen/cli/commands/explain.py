"""`reproq-listen explain`."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen.cli.operator import RESULT_ID, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
Lists the reasons, the one that blocks first on top, each with the statement that would change it.

Usage:
  {program} explain (ID | --id N) [options]

Options:
  --id N  Id of the task.
{operators}

With --output json: one object per reason, with blocks, reason, detail, until and remedy.

Exit codes: 0 explained, 6 the task does not exist; others as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the reasons."""
    word = flags["ID"] if flags["ID"] is not None else flags["--id"]
    try:
        result_id = RESULT_ID(str(word))
    except ValueError as error:
        raise SettingError(f"explain: the task's id {error}") from None

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        reasons = await operator.explain(result_id)
        if output.is_json:
            output.rows(reasons)
        elif not any(reason["blocks"] for reason in reasons):
            output.remark(f"nothing blocks task {result_id}: the next claim that reaches it starts it")
        for reason in () if output.is_json else reasons:
            output.remark(f"{'blocked' if reason['blocks'] else 'note'}: {reason['reason']}")
            output.record({f"  {name}": reason[name] for name in ("detail", "until", "remedy")})
        return ExitCode.MISSING if any(reason["reason"] == "missing" for reason in reasons) else ExitCode.OK

    return run_operator(flags, program, work)
