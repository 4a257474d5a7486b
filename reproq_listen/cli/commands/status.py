"""`reproq-listen status`: queues, busy keys and workers at one look."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen.cli.commands import queue, workers
from reproq_listen.cli.operator import run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.db.errors import CallRefused
from reproq_listen.db.operator_queries import Operator, Record
from reproq_listen.db.session import NO_RIGHT
from reproq_listen.errors import ExitCode

USAGE = """
Queues:     number of tasks that are ready, throttled (ready, but waiting for a token of a limit),
            blocked (by a busy key), scheduled, waiting and running; age of the oldest due task;
            pauses and throttles.
Busy keys:  tasks that are blocked behind each key and tasks that hold it. For operators only.
Workers:    live and dead ones.

Usage:
  {program} status [options]

Options:
{operators}

With --output json: one object with queues, blocked (null if this role may not see it) and workers.

Exit codes: as in {program} --help.
"""

_MAX_KEYS = 20


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print queues, blocked keys and workers."""
    return run_operator(flags, program, _status)


async def _status(operator: Operator, output: CommandOutput) -> ExitCode:
    queues, blocked, fleet = await operator.queues(), await _blocked(operator), await operator.workers()
    if output.is_json:
        output.record({"queues": queues, "blocked": blocked, "workers": fleet})
        return ExitCode.OK
    output.rows(queues, queue.COLUMNS, nothing="no queue has unfinished tasks")
    if blocked is None:
        output.remark("\nbusy keys are not shown: this role may not read reproq_blocked, as reproq_operator may")
    elif blocked:
        output.remark(f"\nbusy keys (the {_MAX_KEYS} with most tasks blocked behind them)")
        output.rows(blocked)
    output.remark("\nworkers")
    output.rows(fleet, workers.COLUMNS, nothing="no workers")
    return ExitCode.OK


async def _blocked(operator: Operator) -> list[Record] | None:
    """Busy keys; None where this role may not see keys."""
    try:
        return await operator.blocked(_MAX_KEYS)
    except CallRefused as error:
        if error.sqlstate != NO_RIGHT:
            raise
        return None
