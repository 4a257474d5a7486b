"""`reproq-listen workflow`: chains, groups and chords."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli import json_input as task_files
from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import settings as config
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Enqueue tasks that belong together, all or none.

Usage:
  {program} workflow chain --file FILE [options]
  {program} workflow group --file FILE [options]
  {program} workflow chord --file FILE --callback JSON [options]

  chain   One after another: each starts when the one before has succeeded; when one fails, those behind it end.
  group   Side by side.
  chord   Side by side, and a callback when all have succeeded; when one fails, the callback ends.

Options:
  --file FILE       The tasks: a JSON array, or one object a line; - = standard input. Keys as of enqueue --file.
  --callback JSON   The callback: an object with the same keys.
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object a task, with workflow_id, ordinal (0: the callback) and result_id (text).
  -h --help         Show this.

Exit codes: 0 enqueued, 2 one of them cannot be a task; else as {program} --help says.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Enqueue the workflow."""
    sources = config.Sources(flags, os.environ)
    tasks = task_files.whole(operate.required(sources, "--file", str))
    callback = operate.required(sources, "--callback", task_files.mapping) if flags["chord"] else ""

    async def work(operator: Operator, output: Output) -> ExitCode:
        if flags["chain"]:
            found = await operator.chain(tasks)
        elif flags["group"]:
            found = await operator.group(tasks)
        else:
            found = await operator.chord(tasks, callback)
        output.rows(found, nothing="no tasks")
        return ExitCode.OK

    return operate.run(flags, program, work, group="reproq_producer")
