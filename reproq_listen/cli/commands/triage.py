"""`reproq-listen triage`: look at failed tasks, and retry them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

from reproq_listen.cli.operator import RESULT_ID, given, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode

USAGE = """
Usage:
  {program} triage list [--queue NAME] [--limit N] [--group] [options]
  {program} triage inspect --id N [--payload] [options]
  {program} triage retry (--id N | --all [--queue NAME] [--task-path PATH] [--kind LIST]
              [--limit N] [--pace DURATION]) [options]

  list     List failed tasks, latest first; --group counts them by queue, path, kind and message.
  inspect  Show one task in any state: its times, keys, errors and tracebacks.
  retry    Run failed tasks again, with attempts counted from zero. With --all in batches, with one
           answer per task; a task that cannot be retried does not stop the others.

Options:
  --id N           Id of the task.
  --all            Retry all failed tasks, of every queue unless --queue is given. Cancelled and expired
                   ones only with --kind.
  --queue NAME     Only tasks of this queue.
  --task-path PATH  Only tasks of this path.
  --kind LIST      Only tasks that failed for one of these reasons, such as timeout,crashed or cancelled.
  --limit N        Largest number of tasks. (list: 50; retry: no limit)
  --group          Count failed tasks by queue, path, kind and message.
  --payload        Also show the arguments and the result of the task.
  --pace DURATION  Pause between two batches of 50. (default: 100ms)
{reason}
{operators}

Answers: retried; already_active: a task with the same spec is ready or running; not_failed: it has
not failed, or an earlier step has to be retried first; waiting: it waits again for a retried step;
busy: another session holds it, try again; missing: it does not exist.

Exit codes: 0 shown or retried (with --all: whatever the answers are); 5 not retried; 6 the task
does not exist; others as in {program} --help.
"""

_BATCH = 50
_LIST = ("result_id", "queue_name", "task_path", "attempts", "failed_at", "kind", "message")
_GROUPS = ("tasks", "queue_name", "task_path", "kind", "message", "last_failed_at", "last_result_id")
_WORDS = {
    "retried": "retried",
    "already_active": "not retried: a task with the same spec is ready or running",
    "not_failed": "not retried: it has not failed, or an earlier step has to be retried first",
    "missing": "the task does not exist",
}
_CODES = {"retried": ExitCode.OK, "missing": ExitCode.MISSING}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """List, inspect or retry."""
    sources = Sources(flags, os.environ)
    if flags["list"]:
        return _list(sources, flags, program)
    result_id = given(sources, "--id", RESULT_ID)
    if result_id is None:
        return _retry_all(sources, flags, program)

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        if flags["inspect"]:
            return await _inspect(operator, output, result_id, payload=sources.is_on("--payload"))
        answer = await retry_while_busy(lambda: operator.retry(result_id))
        output.result({"result_id": result_id, "answer": answer}, f"task {result_id}: {_WORDS.get(answer, answer)}")
        return _CODES.get(answer, ExitCode.UNCHANGED)

    return run_operator(flags, program, work)


def _list(sources: Sources, flags: Mapping[str, object], program: str) -> ExitCode:
    queue = given(sources, "--queue", parsers.name(512))
    limit = given(sources, "--limit", parsers.whole_number(1, 100_000)) or 50

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        if sources.is_on("--group"):
            output.rows(await operator.failures(queue, limit), _GROUPS, nothing="no failed tasks")
        else:
            output.rows(await operator.failed(queue, limit), _LIST, nothing="no failed tasks")
        return ExitCode.OK

    return run_operator(flags, program, work)


async def _inspect(operator: Operator, output: CommandOutput, result_id: int, *, payload: bool) -> ExitCode:
    found = await operator.inspect(result_id)
    if found is None:
        output.result({"result_id": result_id, "answer": "missing"}, "the task does not exist")
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
    queue = given(sources, "--queue", parsers.name(512))
    path = given(sources, "--task-path", parsers.name(1024))
    kinds = given(sources, "--kind", _kinds)
    limit = given(sources, "--limit", parsers.whole_number(1, parsers.MAX_INTEGER)) or parsers.MAX_INTEGER
    pace = given(sources, "--pace", parsers.duration(timedelta(0), timedelta(hours=1)))
    pause = 0.1 if pace is None else pace.total_seconds()

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        counts: Counter[str] = Counter()
        last = 0
        while left := limit - counts.total():
            size, after = min(_BATCH, left), last
            batch = await retry_while_busy(lambda: operator.retry_failed(queue, path, kinds, size, after))  # noqa: B023
            counts.update(row["answer"] for row in batch)
            for row in batch:
                output.result(row, f"task {row['result_id']}: {row['answer']}")
            if len(batch) < size:
                break
            last = batch[-1]["result_id"]
            output.progress(f"{_summary(counts)}; at task {last}")
            await asyncio.sleep(pause)
        output.progress(_summary(counts) if counts else "no failed tasks")
        return ExitCode.OK

    return run_operator(flags, program, work)


def _kinds(text: str) -> list[str]:
    kinds = [part.strip() for part in text.split(",") if part.strip()]
    if not kinds:
        raise ValueError("names no kind: give for example timeout,crashed")
    return kinds


def _summary(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {answer}" for answer, number in counts.most_common())
