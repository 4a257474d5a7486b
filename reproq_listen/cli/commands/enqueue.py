"""`reproq-listen enqueue`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from reproq_listen.cli import json_input
from reproq_listen.cli.operator import given, required, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.errors import CallError
from reproq_listen.db.operator_queries import Operator, Record
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
With --dedupe or --unique-key, no second task is enqueued: the answer is the id of the first.

Usage:
  {program} enqueue TASK_PATH [--args JSON] [--kwargs JSON] [--queue NAME] [--priority N]
              [--run-after TIME] [--in DURATION] [--lock-key KEY] [--concurrency-key KEY]
              [--concurrency-limit N] [--max-attempts N] [--timeout-seconds N] [--backoff-seconds N]
              [--expires-at TIME] [--takes-context] [--dedupe] [--unique-key KEY]
              [--unique-for DURATION] [--unique-while STATE] [--on-duplicate ACTION] [options]
  {program} enqueue --file FILE [options]

Options:
  --args JSON  Positional arguments: a JSON array. (default: [])
  --kwargs JSON  Keyword arguments: a JSON object. (default: {{}})
  --queue NAME  Queue of the task. (default: default)
  --priority N  Priority; a higher number starts first. (default: 0)
  --run-after TIME  Earliest start, such as 2026-12-24T18:00:00+01:00.
  --in DURATION  Earliest start, counted from now by the database's clock, such as 90s, 1h30m or 2d.
  --lock-key KEY  Run at most one task with this key at the same time.
  --concurrency-key KEY  Run at most --concurrency-limit tasks with this key at the same time.
  --concurrency-limit N  Limit for --concurrency-key; 0 = no limit. (default: 0)
  --max-attempts N  Number of attempts in all. (default: 3)
  --timeout-seconds N  Time after which an attempt is stopped, in seconds. (default: 900)
  --backoff-seconds N  Pause before the second attempt, in seconds; it doubles with each further one. (default: 30)
  --expires-at TIME  Time after which the task is not started any more.
  --takes-context  Pass a TaskContext as the first argument of the function.
  --dedupe  If a task with the same spec (path, arguments and options) is ready or running, enqueue no second one.
  --unique-key KEY  Enqueue no second task of this TASK_PATH with this key while one is queued.
  --unique-for DURATION  Also none within this time after the first was enqueued, such as 1h or 7d.
  --unique-while STATE  queued, or active: also none while one is running. (default: queued)
  --on-duplicate ACTION  keep, or replace: give a queued task the new arguments, priority and time. (default: keep)
  --file FILE  Read tasks from a file, one JSON object per line; - = standard input. Keys: task_path, args, kwargs,
               queue_name, priority, run_after, lock_key, concurrency_key, concurrency_limit, max_attempts,
               timeout_seconds, backoff_seconds, expires_at, takes_context, dedupe, delay, unique_key, unique_for,
               unique_while and on_duplicate. Every 1,000 lines are enqueued in one transaction.
{operators}

With --output json: one object per task, with ordinal, result_id and created.

Exit codes: 0 enqueued, or there already; 2 not a valid task; others as in {program} --help.
"""

_BATCH = 1000
_PLACE = re.compile(r"\btask (\d+) of the call")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)", re.ASCII)
INTEGER = parsers.whole_number(-(2**31), parsers.MAX_INTEGER)
POSITIVE = parsers.whole_number(1, parsers.MAX_INTEGER)
_COUNT = parsers.whole_number(0, parsers.MAX_INTEGER)
_DURATION = parsers.duration(timedelta(0), timedelta(days=36500))


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Enqueue the task that the flags describe, or those of the file."""
    sources = Sources(flags, os.environ)
    path = given(sources, "--file", str)
    if path is not None:
        return run_operator(
            flags, program, lambda operator, output: _from_file(operator, output, path), group="reproq_producer"
        )
    task = msgspec.json.encode(_task(required(sources, "TASK_PATH", parsers.name(1024)), sources)).decode()
    if sources.given("--in") and sources.given("--run-after"):
        raise SettingError("--in and --run-after both set the earliest start: leave one out")

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        _print(output, await operator.enqueue(task))
        return ExitCode.OK

    return run_operator(flags, program, work, group="reproq_producer")


def instant(text: str) -> str:
    """A date and time with its offset. Raises ValueError."""
    text = text.strip()
    if not _INSTANT.fullmatch(text):
        raise ValueError(f"needs a time with its offset such as 2026-12-24T18:00:00+01:00, not {parsers.shown(text)}")
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ValueError(f"{parsers.shown(text)}: {error}") from None


def _task(path: str, sources: Sources) -> dict[str, object]:
    """The task as JSON for the database. Flags that are not given are left out: the database has the defaults."""
    args = given(sources, "--args", json_input.array)
    kwargs = given(sources, "--kwargs", json_input.mapping)
    found: dict[str, object | None] = {
        "task_path": path,
        "args": None if args is None else msgspec.Raw(args.encode()),
        "kwargs": None if kwargs is None else msgspec.Raw(kwargs.encode()),
        "queue_name": given(sources, "--queue", parsers.name(512)),
        "priority": given(sources, "--priority", INTEGER),
        "run_after": given(sources, "--run-after", instant),
        "lock_key": given(sources, "--lock-key", parsers.name(1 << 20)),
        "concurrency_key": given(sources, "--concurrency-key", parsers.name(1 << 20)),
        "concurrency_limit": given(sources, "--concurrency-limit", _COUNT),
        "max_attempts": given(sources, "--max-attempts", POSITIVE),
        "timeout_seconds": given(sources, "--timeout-seconds", POSITIVE),
        "backoff_seconds": given(sources, "--backoff-seconds", _COUNT),
        "expires_at": given(sources, "--expires-at", instant),
        "takes_context": True if sources.is_on("--takes-context") else None,
        "dedupe": True if sources.is_on("--dedupe") else None,
        "delay": _seconds(given(sources, "--in", _DURATION)),
        "unique_key": given(sources, "--unique-key", parsers.name(8192)),
        "unique_for": _seconds(given(sources, "--unique-for", _DURATION)),
        "unique_while": given(sources, "--unique-while", parsers.one_of("queued", "active")),
        "on_duplicate": given(sources, "--on-duplicate", parsers.one_of("keep", "replace")),
    }
    return {key: value for key, value in found.items() if value is not None}


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


async def _from_file(operator: Operator, output: CommandOutput, path: str) -> ExitCode:
    enqueued = 0
    for lines, tasks in json_input.batches(path, _BATCH):
        try:
            found = await retry_while_busy(lambda: operator.enqueue_many(tasks))  # noqa: B023
        except CallError as error:
            output.progress(
                f"--file {path}: lines {lines[0]} to {lines[-1]} were not enqueued; {enqueued} tasks before them were"
            )
            text = _PLACE.sub(lambda place: f"--file {path}: line {lines[int(place[1]) - 1]}", str(error))  # noqa: B023
            raise type(error)(text, error.sqlstate) from None
        for row in found:
            row["ordinal"] += enqueued
            _print(output, row)
        enqueued += len(found)
        if enqueued >= _BATCH:
            output.progress(f"enqueued {enqueued}")
    return ExitCode.OK


def _print(output: CommandOutput, row: Record) -> None:
    result_id = row["result_id"]
    output.result(row, f"task {result_id}" if row["created"] else f"task {result_id} is there already")
