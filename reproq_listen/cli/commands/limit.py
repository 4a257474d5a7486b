"""`reproq-listen limit`: set, list and remove token buckets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping

from reproq_listen.cli.operator import given, required, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.errors import CallRefused
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Limits hold for all workers together. Of several limits of a task the most specific one holds:
task:PATH, else queue:NAME, else global. Rate 0 = no limit: task:PATH with rate 0
exempts its tasks from the limit of their queue.

Usage:
  {program} limit set --key KEY --rate R [--burst N] [options]
  {program} limit ls [options]
  {program} limit rm --key KEY [options]

Options:
  --key KEY  Key of the limit: task:PATH, queue:NAME or global.
  --rate R   Starts per second, such as 5 or 0.1; 0 = no limit.
  --burst N  Number of tasks that may start at once after a quiet time. (default: 1)
{reason}
{operators}

Exit codes: 0 done; 6 rm: the limit does not exist; others as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Set, list or remove."""
    if flags["ls"]:
        return run_operator(flags, program, _ls)
    sources = Sources(flags, os.environ)
    key = required(sources, "--key", parsers.name(1024))
    if flags["rm"]:

        async def remove(operator: Operator, output: CommandOutput) -> ExitCode:
            removed = await retry_while_busy(lambda: operator.limit_rm(key))
            output.result(
                {"key": key, "removed": removed}, f"{key}: {'removed' if removed else 'the limit does not exist'}"
            )
            return ExitCode.OK if removed else ExitCode.MISSING

        return run_operator(flags, program, remove)
    rate = required(sources, "--rate", rate_of)
    burst = given(sources, "--burst", parsers.whole_number(1, 1_000_000)) or 1

    async def put(operator: Operator, output: CommandOutput) -> ExitCode:
        try:
            await retry_while_busy(lambda: operator.limit_set(key, rate, burst))
        except CallRefused as error:  # its text names the function and its parameters
            text = re.sub(r"\bp_(?=key|rate|burst)", "--", str(error)).removeprefix("reproq_limit_set: ")
            raise CallRefused(text, error.sqlstate) from None
        text = f"{rate:g} a second, {burst} at once" if rate else "off"
        output.result({"key": key, "rate": rate, "burst": burst}, f"{key}: {text}")
        return ExitCode.OK

    return run_operator(flags, program, put)


def rate_of(text: str) -> float:
    """Tokens a second. Raises ValueError."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1_000_000:
        raise ValueError(f"needs a number of starts a second from 0 to 1000000, not {parsers.shown(text)}")
    return rate


async def _ls(operator: Operator, output: CommandOutput) -> ExitCode:
    output.rows(await operator.limits(), nothing="no limits")
    return ExitCode.OK
