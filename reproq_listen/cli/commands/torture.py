"""`reproq-listen torture`: many tasks that do nothing through a worker of its own, and whether all of them ended."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from reproq_listen.cli import operator as operate
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.db.operator_queries import Operator
from reproq_listen.errors import ExitCode, ReproqError

USAGE = """
Stress a database: enqueue many tasks that do nothing, on a queue of their own, run a worker until all have ended, and
check that each ended well. The rows stay until `{program} prune expired` an hour later.

Usage:
  {program} torture [options]

Options:
  --dsn DSN         The database (DATABASE_URL), as its owner: it enqueues, works and reads the table.
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --count N         How many tasks, 1 to 1000000 (1000).
  --concurrency N   Tasks at a time (10).
  --executor MODE   As for the worker.
  --output FORMAT   text, or json: one object with tasks, statuses, seconds and rates (text).
  -h --help         Show this.

Exit codes: 0 all ended well, 1 some did not; else as {program} --help says.
"""

_TASK = "reproq_listen.demo_tasks.nothing"
_BATCH = 1000
_SECONDS_EACH = 2.0  # at most, and a minute more: a worker that does not get on is stopped
_KEPT = timedelta(hours=1)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Torture, and say how it went. Raises ReproqError."""
    sources = config.read_sources(flags, os.environ)
    dsn = config.required_dsn(sources)
    count = operate.given(sources, "--count", values.whole_number(1, 1_000_000)) or 1000
    chosen = ("--schema", "--concurrency", "--executor")
    config.worker_settings_of(sources, os.environ)  # what the worker would refuse is refused before tasks are there
    more = [f"{flag}={flags[flag]}" for flag in chosen if flags.get(flag) is not None]

    async def work(operator: Operator, output: Output) -> ExitCode:
        return await _torture(operator, output, count, dsn, more)

    return operate.run(flags, program, work)


async def _torture(operator: Operator, output: Output, count: int, dsn: str, more: Sequence[str]) -> ExitCode:
    await operator.statuses([])  # who may not look at the end is refused before tasks are there
    queue = f"torture-{uuid.uuid4().hex[:12]}"
    began = time.monotonic()
    ids = [
        result_id for start in range(0, count, _BATCH) for result_id in await _enqueue(operator, queue, start, count)
    ]
    enqueued = time.monotonic()
    output.progress(f"enqueued {count} tasks in {enqueued - began:.1f} s; working")
    status = await _work(queue, dsn, more, 60 + _SECONDS_EACH * count)
    ended = time.monotonic()
    statuses = await operator.statuses(ids)
    good = status == 0 and statuses == {"SUCCESSFUL": count}
    rates = {"enqueued_per_second": count / (enqueued - began), "ended_per_second": count / (ended - enqueued)}
    found = {"tasks": count, "statuses": statuses, "worker_exit": status, "seconds": ended - began, **rates}
    shown = ", ".join(f"{number} {name}" for name, number in statuses.items())
    output.said(
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
        env={
            **os.environ,
            "DATABASE_URL": dsn,
            "LOW_MEMORY_MODE": "1",
        },  # not among the arguments, which everybody may read
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(limit):
            return await process.wait()
    except TimeoutError:
        raise ReproqError(f"the worker had not ended all tasks after {limit:g} s") from None
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
