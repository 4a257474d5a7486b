"""`reproq-listen triage`: look at failed tasks, and retry them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.config.settings import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Look at failed tasks, and retry them.

Usage:
  {program} triage list [--queue QUEUE] [--limit N] [--group] [options]
  {program} triage inspect --id N [--payload] [options]
  {program} triage retry (--id N | --all [--queue QUEUE] [--task-path PATH] [--limit N] [--pace DURATION]) [options]

  list     Failed tasks, latest first; with --group counted by queue, path, kind and message.
  inspect  One task in any state: its times, keys, errors and tracebacks.
  retry    Run failed tasks again, their attempts counted from zero. With --all in batches, one answer a task; a task
           that cannot be retried stops no other.

Options:
  --id N            The task.
  --all             All failed tasks, of every queue unless told otherwise.
  --queue QUEUE     Only of this queue.
  --task-path PATH  Only of this path.
  --limit N         list: show so many at most (50). retry: retry so many at most.
  --group           Count by queue, path, kind and message.
  --payload         Show also what the task was given and what it returned.
  --pace DURATION   Pause between batches of 50 (100ms).
  --reason TEXT     Why, for the audit log.
  --dsn DSN         The database (DATABASE_URL).
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --output FORMAT   text, or json: one object a line (text).
  -h --help         Show this.

Answers: retried; already_active: a task with the same spec is ready or runs; not_failed: it did not fail, or an earlier
step has to be retried; waiting: it waits again for one that was retried; busy: somebody holds it, try again; missing.

Exit codes: 0 shown, or retried (with --all whatever the answers); 5 not retried; 6 there is no such task; else as
{program} --help says.
"""

_BATCH = 50
_MOST = 1_000_000_000
_LIST = ("result_id", "queue_name", "task_path", "attempts", "failed_at", "kind", "message")
_GROUPS = ("tasks", "queue_name", "task_path", "kind", "message", "last_failed_at", "last_result_id")
_WORDS = {
    "retried": "retried",
    "already_active": "not retried: a task with the same spec is ready or runs",
    "not_failed": "not retried: it has not failed, or an earlier step has to be retried",
    "missing": "there is no such task",
}
_CODES = {"retried": ExitCode.OK, "missing": ExitCode.MISSING}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Do what the word after `triage` says."""
    sources = config.Sources(flags, os.environ)
    if flags["list"]:
        return _list(sources, flags, program)
    result_id = operate.given(sources, "--id", operate.RESULT_ID)
    if result_id is None:
        return _retry_all(sources, flags, program)

    async def work(operator: Operator, output: Output) -> ExitCode:
        if flags["inspect"]:
            return await _inspect(operator, output, result_id, payload=sources.is_on("--payload"))
        answer = await operate.retry_while_busy(lambda: operator.retry(result_id))
        output.said({"result_id": result_id, "answer": answer}, f"task {result_id}: {_WORDS.get(answer, answer)}")
        return _CODES.get(answer, ExitCode.UNCHANGED)

    return operate.run(flags, program, work)


def _list(sources: Sources, flags: Mapping[str, object], program: str) -> ExitCode:
    queue = operate.given(sources, "--queue", values.name(512))
    limit = operate.given(sources, "--limit", values.whole_number(1, 100_000)) or 50

    async def work(operator: Operator, output: Output) -> ExitCode:
        if sources.is_on("--group"):
            output.rows(await operator.failures(queue, limit), _GROUPS, nothing="no failed tasks")
        else:
            output.rows(await operator.failed(queue, limit), _LIST, nothing="no failed tasks")
        return ExitCode.OK

    return operate.run(flags, program, work)


async def _inspect(operator: Operator, output: Output, result_id: int, *, payload: bool) -> ExitCode:
    found = await operator.inspect(result_id)
    if found is None:
        output.said({"result_id": result_id, "answer": "missing"}, "there is no such task")
        return ExitCode.MISSING
    if payload:
        found |= await operator.payload(result_id)
    if output.is_json:
        output.record(found)
        return ExitCode.OK
    errors = found.pop("errors_json")
    output.record(found)
    for number, error in enumerate(errors if isinstance(errors, list) else [errors], 1):
        output.remark(f"\nerror {number}")
        traceback = error.pop("traceback", None) if isinstance(error, dict) else None
        output.record(error if isinstance(error, dict) else {"error": error})
        for line in str(traceback or "").splitlines():
            output.remark("    " + "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line))
    return ExitCode.OK


def _retry_all(sources: Sources, flags: Mapping[str, object], program: str) -> ExitCode:
    queue = operate.given(sources, "--queue", values.name(512))
    path = operate.given(sources, "--task-path", values.name(1024))
    limit = operate.given(sources, "--limit", values.whole_number(1, _MOST)) or _MOST
    pace = operate.given(sources, "--pace", values.duration(timedelta(0), timedelta(hours=1)))
    pause = 0.1 if pace is None else pace.total_seconds()

    async def work(operator: Operator, output: Output) -> ExitCode:
        counts: Counter[str] = Counter()
        last = 0
        while left := limit - counts.total():
            size, after = min(_BATCH, left), last
            batch = await operate.retry_while_busy(lambda: operator.retry_failed(queue, path, size, after))  # noqa: B023
            counts.update(row["answer"] for row in batch)
            for row in batch:
                output.said(row, f"task {row['result_id']}: {row['answer']}")
            if len(batch) < size:
                break
            last = batch[-1]["result_id"]
            output.progress(f"{_summary(counts)}; at task {last}")
            await asyncio.sleep(pause)
        output.progress(_summary(counts) if counts else "no failed tasks")
        return ExitCode.OK

    return operate.run(flags, program, work)


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {answer}" for answer, number in counts.most_common())
