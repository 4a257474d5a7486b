"""`reproq-listen status`: the whole in one look."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen.cli import operator as operate
from reproq_listen.cli.commands import queue, workers
from reproq_listen.cli.output import Output
from reproq_listen.cli.session import NO_RIGHT
from reproq_listen.db.errors import CallRefused
from reproq_listen.db.operator_queries import Operator, Record
from reproq_listen.errors import ExitCode

USAGE = """
Show how things stand: queues with what is ready (throttled: those of them that wait for a token), blocked, scheduled,
waiting and running, the age of the oldest due task, pauses and throttles; busy keys that tasks are blocked behind, and
which tasks hold them, for operators; workers, dead ones too.

Usage:
  {program} status [options]

Options:
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object with queues, blocked (null: not for this role) and workers (text).
  -h --help         Show this.

Exit codes: as {program} --help says.
"""

_MAX_KEYS = 20


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print queues, blocked keys and workers."""
    return operate.run(flags, program, _status)


async def _status(operator: Operator, output: Output) -> ExitCode:
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
