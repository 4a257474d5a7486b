"""`reproq-listen torture`: enqueues many tasks that do nothing, runs a worker, and checks that all succeeded."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from reproq_listen.cli.operator import given, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.settings import OperatorSettings, read, read_sources, worker_settings_of
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode, ReproqError

USAGE = """
Enqueues many tasks on a queue of their own, runs a worker until all have ended, and checks that
each succeeded. Needs the rights of the schema's owner. `{program} prune expired` removes the
rows an hour later.

Usage:
  {program} torture [options]

Options:
  --count N  Number of tasks, 1 to 1000000. (default: 1000)
{torture}

With --output json: one object with tasks, statuses, seconds and rates.

Exit codes: 0 all succeeded, 1 some did not; others as in {program} --help.
"""

_TASK = "reproq_listen.demo_tasks.nothing"
_BATCH = 1000
_MAX_SECONDS_EACH = 2.0  # and a minute more: then the worker is stopped
_KEPT = timedelta(hours=1)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Enqueue, work and print the result. Raises ReproqError."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    dsn = read(OperatorSettings, sources).dsn
    count = given(sources, "--count", parsers.whole_number(1, 1_000_000)) or 1000
    worker_settings_of(sources, os.environ)  # wrong settings are refused before anything is enqueued
    chosen = ("--schema", "--config", "--concurrency", "--executor")
    more = [f"{flag}={flags[flag]}" for flag in chosen if flags.get(flag) is not None]

    async def work(operator: Operator, output: CommandOutput) -> ExitCode:
        return await _torture(operator, output, count, dsn, more)

    return run_operator(flags, program, work)


async def _torture(operator: Operator, output: CommandOutput, count: int, dsn: str, more: Sequence[str]) -> ExitCode:
    await operator.statuses([])  # a role that may not read the results is refused before anything is enqueued
    queue = f"torture-{uuid.uuid4().hex[:12]}"
    began = time.monotonic()
    ids = [
        result_id for start in range(0, count, _BATCH) for result_id in await _enqueue(operator, queue, start, count)
    ]
    enqueued = time.monotonic()
    output.progress(f"enqueued {count} tasks in {enqueued - began:.1f} s; working")
    status = await _work(queue, dsn, more, 60 + _MAX_SECONDS_EACH * count)
    ended = time.monotonic()
    statuses = await operator.statuses(ids)
    good = status == 0 and statuses == {"SUCCESSFUL": count}
    rates = {"enqueued_per_second": count / (enqueued - began), "ended_per_second": count / (ended - enqueued)}
    found = {"tasks": count, "statuses": statuses, "worker_exit": status, "seconds": ended - began, **rates}
    shown = ", ".join(f"{number} {name}" for name, number in statuses.items())
    output.result(
        found, f"{shown}; {ended - enqueued:.1f} s, {rates['ended_per_second']:.0f} tasks/s; worker: exit {status}"
    )
    return ExitCode.OK if good else ExitCode.FAILURE


async def _enqueue(operator: Operator, queue: str, start: int, count: int) -> list[int]:
    expires = (datetime.now(UTC) + _KEPT).isoformat()
    tasks = [
        {"task_path": _TASK, "args": [n], "queue_name": queue, "dedupe": False, "expires_at": expires}
        for n in range(start, min(start + _BATCH, count))
    ]
    return [row["result_id"] for row in await operator.enqueue_many(msgspec.json.encode(tasks).decode())]


async def _work(queue: str, dsn: str, more: Sequence[str], limit: float) -> int:
    """Run a worker until the queue is empty; gives its exit code. Raises ReproqError if it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reproq_listen", "worker", "--queues", queue, "--drain"),
        *("--allowed-task-modules", "reproq_listen.demo_tasks", *more),
        # The DSN is no argument: every user can read those.
        env={**os.environ, "DATABASE_URL": dsn, "LOW_MEMORY_MODE": "1"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(limit):
            return await process.wait()
    except TimeoutError:
        raise ReproqError(
            f"the worker had not run all tasks after {limit:g} s: reproq-listen status shows where it is"
        ) from None
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
