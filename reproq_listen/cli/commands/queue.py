"""`reproq-listen queue`: pause, resume, look."""

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
Pause and resume queues, and look at them. While a queue is paused none of its tasks starts; those that run go on.
Ready tasks are due and no key holds them; throttled are those of them that wait for a token of their limit.

Usage:
  {program} queue pause --queue NAME [options]
  {program} queue resume --queue NAME [options]
  {program} queue ls [options]

Options:
  --queue NAME      The queue.
  --reason TEXT     Why: shown with the paused queue, and kept in the audit log.
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object a line (text).
  -h --help         Show this.

Exit codes: 0 done, also when nothing had to change; else as {program} --help says.
"""

COLUMNS = (
    *("queue_name", "ready", "throttled", "blocked", "scheduled", "waiting", "running", "oldest_ready"),
    *("next_due", "paused", "paused_reason", "throttled_until"),
)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Do what the word after `queue` says."""
    if flags["ls"]:
        return operate.run(flags, program, _ls)
    sources = config.Sources(flags, os.environ)
    queue = operate.required(sources, "--queue", values.name(512))
    reason = sources.find(operate.REASON)

    async def work(operator: Operator, output: Output) -> ExitCode:
        if flags["pause"]:
            await operate.retry_while_busy(lambda: operator.pause(queue, reason))
        else:
            await operate.retry_while_busy(lambda: operator.resume(queue))
        done = "paused" if flags["pause"] else "resumed"
        output.said({"queue_name": queue, "answer": done}, f"queue {queue}: {done}")
        return ExitCode.OK

    return operate.run(flags, program, work)


async def _ls(operator: Operator, output: Output) -> ExitCode:
    output.rows(await operator.queues(), COLUMNS, nothing="no queue has unfinished tasks")
    return ExitCode.OK
