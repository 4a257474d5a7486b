"""`reproq-listen replay`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
Enqueue a task anew, with the spec of an old one, which stays as it is. The new task is on its own, not a step of the
old one's chain or chord.

Usage:
  {program} replay (--id N | --spec-hash HASH) [options]

Options:
  --id N            The task to copy.
  --spec-hash HASH  Copy the newest task with this hash.
  --reason TEXT     Why, for the audit log.
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object with source_id, result_id and answer (text).
  -h --help         Show this.

Exit codes: 0 replayed; 5 a task with the same spec is ready or runs already; 6 there is no such task; else as
{program} --help says.
"""

_CODES = {"already_active": ExitCode.UNCHANGED, "missing": ExitCode.MISSING}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Replay, and print the answer."""
    sources = config.Sources(flags, os.environ)
    result_id = operate.given(sources, "--id", operate.RESULT_ID)
    spec_hash = operate.given(sources, "--spec-hash", values.name(64))

    async def work(operator: Operator, output: Output) -> ExitCode:
        if result_id is not None:
            found = await operate.retry_while_busy(lambda: operator.replay(result_id))
        elif spec_hash is not None:
            found = await operate.retry_while_busy(lambda: operator.replay_by_hash(spec_hash))
        else:
            raise SettingError("give --id or --spec-hash")
        words = {
            "replayed": f"replayed task {found['source_id']} as task {found['result_id']}",
            "already_active": f"task {found['result_id']} has the same spec and has not ended: nothing enqueued",
            "missing": "there is no such task",
        }
        output.said(found, words[found["answer"]])
        return _CODES.get(found["answer"], ExitCode.OK)

    return operate.run(flags, program, work)
