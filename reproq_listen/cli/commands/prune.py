"""`reproq-listen prune`: delete old tasks and audit rows, in batches."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from reproq_listen.cli.operator import given, required, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Works in batches that hold no lock for long. Deletes no running task, and none that a live task
depends on: a waiting step, a chain or chord that has not ended, or a failed task of a
chord that could be retried.

Usage:
  {program} prune expired [--limit N] [--dry-run] [options]
  {program} prune finished --older-than DURATION [--limit N] [--dry-run] [options]
  {program} prune audit --older-than DURATION [--limit N] [--dry-run] [options]

  expired   Delete tasks whose expires_at has passed, also those that did not start.
  finished  Delete tasks that ended longer ago than --older-than.
  audit     Delete rows of the audit log that are older than --older-than.

Options:
  --older-than DURATION  Smallest age, such as 30d, 12h or 1d12h.
  --limit N  Largest number of rows to delete; 0 = no limit. (default: 0)
  --dry-run  Count the rows; delete nothing.
{reason}
{operators}

Exit codes: 0 done, also if there was nothing to delete; others as in {program} --help.
"""

_BATCH = 1000
Prune = Callable[[Operator, int], Awaitable[int]]


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Delete batch by batch until nothing is left or the limit is reached."""
    sources = Sources(flags, os.environ)
    limit = given(sources, "--limit", parsers.whole_number(0, parsers.MAX_INTEGER)) or parsers.MAX_INTEGER
    dry_run = sources.is_on("--dry-run")
    prune = _prune(flags, dry_run=dry_run)

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        if dry_run:
            number = await prune(operator, limit)
            output.result({"would_delete": number}, f"would delete {number}")
            return ExitCode.OK
        deleted = 0
        while deleted < limit:
            size = min(_BATCH, limit - deleted)
            number = await retry_while_busy(lambda: prune(operator, size))  # noqa: B023
            deleted += number
            # Each batch that prunes the audit log adds a row to it: without this end the loop would never end.
            if not number or (flags["audit"] and number < size):
                break
            output.progress(f"deleted {deleted}")
        output.result({"deleted": deleted}, f"deleted {deleted}")
        return ExitCode.OK

    return run_operator(flags, program, work)


def _prune(flags: Mapping[str, object], *, dry_run: bool) -> Prune:
    """The call that deletes one batch."""
    if flags["expired"]:
        return lambda operator, size: operator.prune_expired(size, dry_run=dry_run)
    sources = Sources(flags, os.environ)
    age = required(sources, "--older-than", parsers.duration(timedelta(0), timedelta(days=36500)))
    if flags["finished"]:
        return lambda operator, size: operator.prune_finished(age, size, dry_run=dry_run)
    return lambda operator, size: operator.prune_audit(age, size, dry_run=dry_run)
