"""`reproq-listen replay`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli.operator import RESULT_ID, given, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
The copy has the same spec and is not part of the chain or chord of the old task. The old task stays
as it is.

Usage:
  {program} replay (--id N | --spec-hash HASH) [options]

Options:
  --id N            Id of the task to copy.
  --spec-hash HASH  Copy the newest task with this hash.
{reason}
{operators}

With --output json: one object with source_id, result_id and answer.

Exit codes: 0 replayed; 5 a task with the same spec is ready or running already; 6 the task does not
exist; others as in {program} --help.
"""

_CODES = {"already_active": ExitCode.UNCHANGED, "missing": ExitCode.MISSING}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Replay, and print the answer."""
    sources = Sources(flags, os.environ)
    result_id = given(sources, "--id", RESULT_ID)
    spec_hash = given(sources, "--spec-hash", parsers.name(64))

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        if result_id is not None:
            found = await retry_while_busy(lambda: operator.replay(result_id))
        elif spec_hash is not None:
            found = await retry_while_busy(lambda: operator.replay_by_hash(spec_hash))
        else:
            raise SettingError("give --id or --spec-hash")
        words = {
            "replayed": f"replayed task {found['source_id']} as task {found['result_id']}",
            "already_active": f"task {found['result_id']} has the same spec and has not ended: nothing enqueued",
            "missing": "the task does not exist",
        }
        output.result(found, words[found["answer"]])
        return _CODES.get(found["answer"], ExitCode.OK)

    return run_operator(flags, program, work)
