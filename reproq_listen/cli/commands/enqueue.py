"""`reproq-listen enqueue`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from reproq_listen.cli import json_input as task_files
from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.config.settings import Sources
from reproq_listen.db.errors import CallError
from reproq_listen.db.operator_queries import Operator, Record
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
Enqueue a task, or many from a file. A task with the same spec that is ready or runs is returned instead of a second.

Usage:
  {program} enqueue TASK_PATH [--args JSON] [--kwargs JSON] [--queue NAME] [--priority N] [--run-after TIME]
              [--in DURATION] [--lock-key KEY] [--concurrency-key KEY] [--concurrency-limit N] [--max-attempts N]
              [--timeout-seconds N] [--backoff-seconds N] [--expires-at TIME] [--takes-context] [--no-dedupe] [options]
  {program} enqueue --file FILE [options]

Options:
  --args JSON            Positional arguments: an array ([]).
  --kwargs JSON          Keyword arguments: an object.
  --queue NAME           The queue (default).
  --priority N           Higher goes first (0).
  --run-after TIME       Not before, as in 2026-12-24T18:00:00+01:00.
  --in DURATION          Not before so long from now, as in 90s, 1h30m or 2d, by the database's clock.
  --lock-key KEY         One task at a time with this key.
  --concurrency-key KEY  So many at a time with this key as --concurrency-limit says.
  --concurrency-limit N  0 = no limit (0).
  --max-attempts N       Attempts in all (3).
  --timeout-seconds N    Stopped after so long (900).
  --backoff-seconds N    Pause before the second attempt; doubled from there (30).
  --expires-at TIME      Never started after.
  --takes-context        The function's first argument is its context.
  --no-dedupe            Enqueue it even if a task with the same spec has not ended.
  --file FILE            JSON lines, one object a task, - = standard input. Keys: task_path, args, kwargs, queue_name,
                         priority, run_after, lock_key, concurrency_key, concurrency_limit, max_attempts,
                         timeout_seconds, backoff_seconds, expires_at, takes_context and dedupe (true, false). Batches
                         of 1,000 lines, each all or none.
  --dsn DSN              The database (DATABASE_URL).
  --schema NAME          The schema that holds reproq's functions (the search path finds it).
  --output FORMAT        text, or json: one object a task, with ordinal, result_id and created (text).
  -h --help              Show this.

Exit codes: 0 enqueued, or there already; 2 it cannot be a task; else as {program} --help says.
"""

_BATCH = 1000
_PLACE = re.compile(r"\btask (\d+) of the call")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)", re.ASCII)
_MOST = 2**31 - 1
_ANY = values.whole_number(-(2**31), _MOST)
_POSITIVE = values.whole_number(1, _MOST)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Enqueue what the flags or the file say."""
    sources = config.Sources(flags, os.environ)
    path = operate.given(sources, "--file", str)
    if path is not None:
        return operate.run(
            flags, program, lambda operator, output: _from_file(operator, output, path), group="reproq_producer"
        )
    task = msgspec.json.encode(_task(operate.required(sources, "TASK_PATH", values.name(1024)), sources)).decode()
    delay = operate.given(sources, "--in", values.duration(timedelta(0), timedelta(days=36500)))
    if delay is not None and sources.given("--run-after"):
        raise SettingError("--in and --run-after both say when: leave one out")

    async def work(operator: Operator, output: Output) -> ExitCode:
        _say(output, await operator.enqueue(task, delay))
        return ExitCode.OK

    return operate.run(flags, program, work, group="reproq_producer")


def instant(text: str) -> str:
    """A date and time with its offset. Raises ValueError."""
    text = text.strip()
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"needs a time with its offset such as 2026-12-24T18:00:00+01:00, not {values.shown(text)}")
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ValueError(f"{values.shown(text)}: {error}") from None


def _task(path: str, sources: Sources) -> dict[str, object]:
    """The task as the database wants it; what was not given is left out, so that the defaults are the database's."""
    args = operate.given(sources, "--args", task_files.array)
    kwargs = operate.given(sources, "--kwargs", task_files.mapping)
    found: dict[str, object | None] = {
        "task_path": path,
        "args": None if args is None else msgspec.Raw(args.encode()),
        "kwargs": None if kwargs is None else msgspec.Raw(kwargs.encode()),
        "queue_name": operate.given(sources, "--queue", values.name(512)),
        "priority": operate.given(sources, "--priority", _ANY),
        "run_after": operate.given(sources, "--run-after", instant),
        "lock_key": operate.given(sources, "--lock-key", values.name(1 << 20)),
        "concurrency_key": operate.given(sources, "--concurrency-key", values.name(1 << 20)),
        "concurrency_limit": operate.given(sources, "--concurrency-limit", values.whole_number(0, _MOST)),
        "max_attempts": operate.given(sources, "--max-attempts", _POSITIVE),
        "timeout_seconds": operate.given(sources, "--timeout-seconds", _POSITIVE),
        "backoff_seconds": operate.given(sources, "--backoff-seconds", values.whole_number(0, _MOST)),
        "expires_at": operate.given(sources, "--expires-at", instant),
        "takes_context": True if sources.is_on("--takes-context") else None,
        "dedupe": False if sources.is_on("--no-dedupe") else None,
    }
    return {key: value for key, value in found.items() if value is not None}


async def _from_file(operator: Operator, output: Output, path: str) -> ExitCode:
    enqueued = 0
    for lines, tasks in task_files.batches(path, _BATCH):
        try:
            found = await operate.retry_while_busy(lambda: operator.enqueue_many(tasks))  # noqa: B023
        except CallError as error:
            output.progress(
                f"--file {path}: lines {lines[0]} to {lines[-1]} were not enqueued; {enqueued} tasks before them were"
            )
            said = _PLACE.sub(lambda place: f"--file {path}: line {lines[int(place[1]) - 1]}", str(error))  # noqa: B023
            raise type(error)(said, error.sqlstate) from None
        for row in found:
            row["ordinal"] += enqueued
            _say(output, row)
        enqueued += len(found)
        if enqueued >= _BATCH:
            output.progress(f"enqueued {enqueued}")
    return ExitCode.OK


def _say(output: Output, row: Record) -> None:
    result_id = row["result_id"]
    output.said(row, f"task {result_id}" if row["created"] else f"task {result_id} has the same spec and has not ended")
