"""`reproq-listen workflow`: chains, groups and chords."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli import json_input
from reproq_listen.cli.operator import required, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
All tasks of a workflow are enqueued, or none.

Usage:
  {program} workflow chain --file FILE [options]
  {program} workflow group --file FILE [options]
  {program} workflow chord --file FILE --callback JSON [options]

  chain   Tasks run one after another. Each starts when the one before has succeeded. If one fails,
          those behind it fail, too.
  group   Tasks run independently of each other.
  chord   Tasks run as in a group. When all have succeeded, the callback runs. If one fails, the
          callback fails, too.

Options:
  --file FILE      Tasks: a JSON array, or one object per line; - = standard input. Keys as in enqueue --file.
  --callback JSON  Callback: a JSON object with the same keys.
{operators}

With --output json: one object per task, with workflow_id, ordinal (0 for the callback) and
result_id.

Exit codes: 0 enqueued, 2 one of them is not a valid task; others as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Enqueue the workflow."""
    sources = Sources(flags, os.environ)
    tasks = json_input.whole(required(sources, "--file", str))
    callback = required(sources, "--callback", json_input.mapping) if flags["chord"] else ""

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        if flags["chain"]:
            found = await operator.chain(tasks)
        elif flags["group"]:
            found = await operator.group(tasks)
        else:
            found = await operator.chord(tasks, callback)
        output.rows(found, nothing="no tasks")
        return ExitCode.OK

    return run_operator(flags, program, work, group="reproq_producer")
