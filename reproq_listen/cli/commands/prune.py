"""`reproq-listen prune`: delete what is over, in batches."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Delete what is over, in batches that hold no lock for long. Only tasks that have ended, and none that something live
depends on: a step that waits, a chord or chain that has not ended, a failed task of a chord that could be retried.

Usage:
  {program} prune expired [--limit N] [--dry-run] [options]
  {program} prune finished --older-than DURATION [--limit N] [--dry-run] [options]
  {program} prune audit --older-than DURATION [--limit N] [--dry-run] [options]

  expired   Tasks that have ended and whose expires_at has passed.
  finished  Tasks that ended so long ago.
  audit     Rows of the audit log so old.

Options:
  --older-than DURATION  As in 30d, 12h or 1d12h.
  --limit N              Delete so many at most; 0 = all (0).
  --dry-run              Count, and delete nothing.
  --reason TEXT          Why, for the audit log.
  --dsn DSN              The database (DATABASE_URL).
  --schema NAME          The schema that holds reproq's functions (the search path finds it).
  --output FORMAT        text, or json: one object (text).
  -h --help              Show this.

Exit codes: 0 done, also when there was nothing to delete; else as {program} --help says.
"""

_BATCH = 1000
_MOST = 2**31 - 1
Prune = Callable[[Operator, int], Awaitable[int]]


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Delete batch by batch until nothing is left or the limit is reached."""
    sources = config.Sources(flags, os.environ)
    limit = operate.given(sources, "--limit", values.whole_number(0, _MOST)) or _MOST
    dry_run = sources.is_on("--dry-run")
    prune = _prune(flags, dry_run=dry_run)

    async def work(operator: Operator, output: Output) -> ExitCode:
        if dry_run:
            number = await prune(operator, limit)
            output.said({"would_delete": number}, f"would delete {number}")
            return ExitCode.OK
        deleted = 0
        while deleted < limit:
            size = min(_BATCH, limit - deleted)
            number = await operate.retry_while_busy(lambda: prune(operator, size))  # noqa: B023
            deleted += number
            # Pruning the audit log is noted there: without an end of its own it would delete that for ever.
            if not number or (flags["audit"] and number < size):
                break
            output.progress(f"deleted {deleted}")
        output.said({"deleted": deleted}, f"deleted {deleted}")
        return ExitCode.OK

    return operate.run(flags, program, work)


def _prune(flags: Mapping[str, object], *, dry_run: bool) -> Prune:
    """The call that deletes one batch."""
    if flags["expired"]:
        return lambda operator, size: operator.prune_expired(size, dry_run=dry_run)
    sources = config.Sources(flags, os.environ)
    age = operate.required(sources, "--older-than", values.duration(timedelta(0), timedelta(days=36500)))
    if flags["finished"]:
        return lambda operator, size: operator.prune_finished(age, size, dry_run=dry_run)
    return lambda operator, size: operator.prune_audit(age, size, dry_run=dry_run)
