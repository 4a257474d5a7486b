"""`reproq-listen limit`: token buckets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.db.errors import CallRefused
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Limit how fast tasks start, over all workers. Of the limits of a task the most specific one with a positive rate holds:
task:PATH, else queue:NAME, else global.

Usage:
  {program} limit set --key KEY --rate R [--burst N] [options]
  {program} limit ls [options]
  {program} limit rm --key KEY [options]

Options:
  --key KEY         task:PATH, queue:NAME or global.
  --rate R          Starts a second, such as 5 or 0.1; 0 = off.
  --burst N         So many may start at once after a quiet time (1).
  --reason TEXT     Why, for the audit log.
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object a line (text).
  -h --help         Show this.

Exit codes: 0 done, 6 rm: there is no such limit; else as {program} --help says.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Do what the word after `limit` says."""
    if flags["ls"]:
        return operate.run(flags, program, _ls)
    sources = config.Sources(flags, os.environ)
    key = operate.required(sources, "--key", values.name(1024))
    if flags["rm"]:

        async def remove(operator: Operator, output: Output) -> ExitCode:
            removed = await operate.retry_while_busy(lambda: operator.limit_rm(key))
            output.said({"key": key, "removed": removed}, f"{key}: {'removed' if removed else 'there was no limit'}")
            return ExitCode.OK if removed else ExitCode.MISSING

        return operate.run(flags, program, remove)
    rate = operate.required(sources, "--rate", rate_of)
    burst = operate.given(sources, "--burst", values.whole_number(1, 1_000_000)) or 1

    async def put(operator: Operator, output: Output) -> ExitCode:
        try:
            await operate.retry_while_busy(lambda: operator.limit_set(key, rate, burst))
        except CallRefused as error:  # which speaks of the function and its parameters
            said = re.sub(r"\bp_(?=key|rate|burst)", "--", str(error)).removeprefix("reproq_limit_set: ")
            raise CallRefused(said, error.sqlstate) from None
        text = f"{rate:g} a second, {burst} at once" if rate else "off"
        output.said({"key": key, "rate": rate, "burst": burst}, f"{key}: {text}")
        return ExitCode.OK

    return operate.run(flags, program, put)


def rate_of(text: str) -> float:
    """Tokens a second. Raises ValueError."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1_000_000:
        raise ValueError(f"needs a number of starts a second from 0 to 1000000, not {values.shown(text)}")
    return rate


async def _ls(operator: Operator, output: Output) -> ExitCode:
    output.rows(await operator.limits(), nothing="no limits")
    return ExitCode.OK
