"""`reproq-listen queue`: pause, resume and list queues."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli.operator import required, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import definitions, parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
While a queue is paused, none of its tasks starts; running tasks continue. Ready tasks are due and
not blocked by a key. Throttled tasks are ready and wait for a token of their limit.

Usage:
  {program} queue pause --queue NAME [options]
  {program} queue resume --queue NAME [options]
  {program} queue ls [options]

Options:
  --queue NAME  Name of the queue.
{reason}
{operators}

The reason of a pause is also shown by `queue ls`.

Exit codes: 0 done, also if nothing had to change; others as in {program} --help.
"""

COLUMNS = (
    *("queue_name", "ready", "throttled", "blocked", "scheduled", "waiting", "running", "oldest_ready"),
    *("next_due", "paused", "paused_reason", "throttled_until"),
)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Pause, resume or list."""
    if flags["ls"]:
        return run_operator(flags, program, _ls)
    sources = Sources(flags, os.environ)
    queue = required(sources, "--queue", parsers.name(512))
    reason = sources.find(definitions.REASON)

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        if flags["pause"]:
            await retry_while_busy(lambda: operator.pause(queue, reason))
        else:
            await retry_while_busy(lambda: operator.resume(queue))
        done = "paused" if flags["pause"] else "resumed"
        output.result({"queue_name": queue, "answer": done}, f"queue {queue}: {done}")
        return ExitCode.OK

    return run_operator(flags, program, work)


async def _ls(operator: Operator, output: CommandOutput) -> ExitCode:
    output.rows(await operator.queues(), COLUMNS, nothing="no queue has unfinished tasks")
    return ExitCode.OK
