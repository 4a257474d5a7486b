"""`reproq-listen demo`: from nothing to finished tasks, with a real server and a real worker process."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from reproq_listen.cli.operator import given
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.errors import CallError
from reproq_listen.db.migrations import migrate
from reproq_listen.db.operator_queries import Operator, TaskState
from reproq_listen.db.session import open_database
from reproq_listen.embedded.server import EmbeddedServer
from reproq_listen.errors import ExitCode, ReproqError
from reproq_listen.logs.event_log import Event

USAGE = """
Starts a temporary embedded PostgreSQL, migrates it, and enqueues a few dozen tasks that read real
files. One fails once, one always fails, one is due a second later, two share a lock key, one is
cancelled. Runs a worker until it has drained, and prints the result of each task. Removes
everything at the end. Needs reproq-listen[embedded].

Usage:
  {program} demo [options]

Options:
  --files N  Number of files to read, 1 to 500. (default: 14)
{help}

Exit codes: 0 every task ended as planned, 1 at least one did not.
"""

_TASKS = "reproq_listen.demo_tasks"
_MAX_SECONDS = 60.0
_TEXT_SUFFIXES = (".py", ".sql", ".md", ".toml", ".txt")


class Planned(Struct, frozen=True):
    """One task of the demo and the end it must come to. `fails_with`: the kind of its error, or empty."""

    label: str
    function: str
    options: dict[str, object]
    attempts: int = 1
    fails_with: str = ""

    def row(self) -> dict[str, object]:
        return {"task_path": f"{_TASKS}.{self.function}", "dedupe": False, **self.options}


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Run the demo. Raises ReproqError when it cannot even start."""
    count = given(Sources(flags, {}), "--files", parsers.whole_number(1, 500)) or 14
    began = time.monotonic()
    print("starting an embedded PostgreSQL ...", flush=True)
    with EmbeddedServer() as server:
        dsn = server.dsn()
        steps = migrate(dsn, report=lambda _: None)
        print(f"migrated: {len(steps)} steps ({time.monotonic() - began:.1f} s)", flush=True)
        good = asyncio.run(_show(dsn, plan(_some_files(count))))
    print(f"all stopped and removed ({time.monotonic() - began:.1f} s in all)")
    return ExitCode.OK if good else ExitCode.FAILURE


def plan(files: Sequence[Path]) -> list[Planned]:
    """The tasks, in the order they are enqueued."""
    due = time.time() + 1.0
    quick: dict[str, object] = {"backoff_seconds": 0.5}
    planned = [
        Planned(f"{function} {path.name}", function, {"args": [str(path)]})
        for path in files
        for function in ("digest", "count_words")
        if function == "digest" or path.suffix in _TEXT_SUFFIXES
    ]
    locked: dict[str, object] = {"args": [0.3], "lock_key": "demo"}
    return [
        Planned("cancelled while it runs", "run_for_ever", {"priority": 10}, fails_with="cancelled"),
        Planned("fails once", "fail_once", {"takes_context": True, **quick}, attempts=2),
        Planned("always fails", "fail_always", {"max_attempts": 2, **quick}, 2, "app_error"),
        Planned("one lock key, first", "hold_the_key", locked),
        Planned("one lock key, second", "hold_the_key", locked),
        Planned("due a second later", "be_on_time", {"args": [due], "run_after": _iso(due), "priority": 10}),
        *planned,
    ]


async def _show(dsn: str, planned: list[Planned]) -> bool:
    """Enqueue, work, and print. True if all ended as planned."""
    try:
        async with open_database(dsn, None, "demo") as database:
            operator = Operator(database)
            enqueued = await operator.enqueue_many(json.dumps([task.row() for task in planned]))
            ids = [row["result_id"] for row in enqueued]
            print(f"enqueued: {len(ids)} tasks\n", flush=True)
            async with _worker(dsn) as process, asyncio.timeout(_MAX_SECONDS):
                await _follow(process, operator, dict(zip(ids, planned, strict=True)))
                status = await process.wait()
            states = await operator.states(ids)
    except TimeoutError:
        raise ReproqError(f"the worker had not drained after {_MAX_SECONDS:g} s") from None
    except CallError as error:
        raise ReproqError(f"the embedded database refused a call: {error}") from None
    wrong = print_table(planned, states)
    print(f"worker: exit {status}")
    return not wrong and status == 0


@asynccontextmanager
async def _worker(dsn: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process as anybody would start it, stopped at the latest when this ends."""
    flags = ["--dsn", dsn, "--queues", "default", "--allowed-task-modules", _TASKS, "--concurrency", "4", "--drain"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reproq_listen", "worker", *flags), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _follow(process: asyncio.subprocess.Process, operator: Operator, planned: Mapping[int, Planned]) -> None:
    """Show the worker's log in plain words while it works, and cancel the task that is there to be cancelled."""
    assert process.stderr is not None
    began = time.monotonic()
    async for line in process.stderr:
        try:
            event = json.loads(line)
        except ValueError:
            print(line.decode(errors="replace").rstrip())
            continue
        task = planned.get(event.get("task_id"))
        words = _in_words(event)
        if task is None or words is None:
            continue
        print(f"{time.monotonic() - began:7.2f} s  {words:<22}{task.label}", flush=True)
        if event["event"] == Event.TASK_STARTED and task.fails_with == "cancelled":
            answer = await operator.cancel(event["task_id"])
            print(f"{'':11}cancel: {answer}", flush=True)


def _in_words(event: Mapping[str, object]) -> str | None:
    match event.get("event"):
        case Event.TASK_STARTED:
            return "started"
        case Event.TASK_SUCCESS:
            return "succeeded"
        case Event.TASK_RETRY:
            return "failed, will retry"
        case Event.TASK_CANCELLED:
            return "cancelled"
        case Event.TASK_FAILED | Event.TASK_REJECTED | Event.TASK_INVALID | Event.TASK_INFRA_ERROR:
            return "failed"
        case _:
            return None


def print_table(planned: Sequence[Planned], states: Sequence[TaskState]) -> int:
    """Print what became of each task. Gives how many ended otherwise than planned."""
    width = max(20, min(140, shutil.get_terminal_size((110, 24)).columns) - 58)
    print(f"\n{'task':<34}{'outcome':<12}{'attempts':>8}  result or error")
    wrong = 0
    for task, state in zip(planned, states, strict=True):
        expected = is_as_planned(task, state)
        wrong += not expected
        said = state.last_error or state.result or ""
        mark = "" if expected else "   <-- not as planned"
        print(f"{task.label[:33]:<34}{state.status:<12}{state.attempts:>8}  {said[:width]}{mark}")
    held = sorted(json.loads(s.result) for t, s in zip(planned, states, strict=True) if "lock" in t.label and s.result)
    if len(held) == 2 and held[0][1] > held[1][0]:
        wrong += 1
        print("two tasks held one lock key at the same time   <-- not as planned")
    succeeded = sum(state.status == "SUCCESSFUL" for state in states)
    print(f"\n{len(states)} tasks: {succeeded} succeeded, {len(states) - succeeded} failed; {wrong} not as planned")
    return wrong


def is_as_planned(task: Planned, state: TaskState) -> bool:
    """Whether a task has come to the end it was meant for."""
    if task.fails_with:
        error = (state.last_error or "").startswith(f"{task.fails_with}:")
        return state.status == "FAILED" and state.attempts == task.attempts and error
    return state.status == "SUCCESSFUL" and state.attempts == task.attempts


def _some_files(most: int) -> list[Path]:
    """Files of the checkout, or, installed, of the package itself: the same every time."""
    package = Path(__file__).resolve().parents[2]
    root = package.parent if (package.parent / "pyproject.toml").exists() else package
    found = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith((".", "__")) for part in path.relative_to(root).parts)
    ]
    return sorted(found, key=lambda path: -path.stat().st_size)[:most]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
