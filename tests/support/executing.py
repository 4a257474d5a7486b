"""What the tests of executors share: a task to run, an executor to run it, and waiting for a condition."""

import asyncio
import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reproq_listen.executors.per_task.attempt import Attempt
from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.executors.per_task.fork import fork_executor
from reproq_listen.executors.per_task.spawn import spawn_executor
from reproq_listen.model import ClaimedTask, ExecutorSettings, Outcome, TaskError
from tests.support.database import ROOT

MODULE = "tests.apps.tasks"
FOREIGN = "tests.apps.foreign_executor"
DIES_AFTER_REAPING = """
import os, pathlib, signal
reap = os.wait4
def reap_and_die(pid, options):
    ended = reap(pid, options)
    try:
        pathlib.Path({died!r}).touch(exist_ok=False)
    except FileExistsError:
        return ended
    os.kill(os.getpid(), signal.SIGKILL)
os.wait4 = reap_and_die
"""
"""Code for the imports of a forkserver: the first time that it has reaped a child, it dies before it answers. The file
`died` then exists."""
MODE: ContextVar[str] = ContextVar("mode", default="spawn")
"""The executor mode that tests run in; see the fixture `each_mode`."""


def settings(**changes: Any) -> ExecutorSettings:
    values: dict[str, Any] = {
        "python_bin": sys.executable,
        "allowed_task_modules": ("tests.apps.tasks",),
        "grace": timedelta(seconds=1),
    }
    return ExecutorSettings(**(values | changes))


def task(name: str, *args: Any, timeout_seconds: int = 60, **spec: Any) -> ClaimedTask:
    """A task of tests/apps/tasks.py. `spec` adds to its spec or replaces parts of it."""
    path = f"{MODULE}.{name}"
    text = json.dumps({"v": 1, "task_path": path, "args": args, "kwargs": {}, "queue_name": "default"} | spec)
    return claimed(text, path, timeout_seconds)


def claimed(spec: str, path: str | None, timeout_seconds: int = 60) -> ClaimedTask:
    return ClaimedTask(
        result_id=42,
        lease_token=uuid.uuid4(),
        queue_name="default",
        priority=0,
        task_path=path,
        spec=spec,
        attempts=1,
        max_attempts=3,
        timeout_seconds=timeout_seconds,
        enqueued_at=datetime.now(UTC),
        waited=timedelta(0),
        lost_count=0,
    )


@contextlib.asynccontextmanager
async def executor(
    warnings: list[str] | None = None,
    metadata: list[bytes] | None = None,
    on_ready: Callable[[], None] = lambda: None,
    **changes: Any,
) -> AsyncIterator[PerTaskExecutor]:
    """An open executor of the present `MODE`. Its children find the tests, and `metadata` gets what tasks save.

    It must not warn or pause, unless a list is given, and no callback of the loop may raise.
    """
    unexpected: list[str] = []
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        made = settings(**changes)
        warn = (unexpected if warnings is None else warnings).append
        save = (metadata if metadata is not None else []).append
        make = fork_executor if MODE.get() == "fork" else spawn_executor
        running = make(made, warn, lambda _, body: save(body), lambda why, _: warn(why), on_ready)
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    try:
        await running.open()
        yield running
    finally:
        await running.close()
    assert unexpected == [], unexpected
    assert raised == [], raised


async def outcome_of(running: PerTaskExecutor, what: ClaimedTask, seconds: float = 15) -> Outcome:
    """Run a task to its end, which must come within the time."""
    attempt = await running.start(what)
    async with asyncio.timeout(seconds):
        return await attempt.wait()


def run(what: ClaimedTask, **changes: Any) -> Outcome:
    """Run one task in an executor of its own."""

    async def main() -> Outcome:
        async with executor(**changes) as running:
            return await outcome_of(running, what)

    return asyncio.run(main())


def run_foreign(**kwargs: Any) -> Outcome:
    """Run the foreign executor, which behaves as `kwargs` say."""
    return run(task("add", kwargs=kwargs), executor_module=FOREIGN)


def error_of(outcome: Outcome) -> TaskError:
    assert outcome.error is not None, outcome
    assert outcome.result is None
    return outcome.error


def value_of(outcome: Outcome) -> Any:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return json.loads(outcome.result)


async def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Wait until the condition holds. Fails if it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)


async def pid_in(path: Path) -> int:
    """Wait until a task has written a process id, and give it."""
    await until(path.exists, f"{path} is written")
    return written_pid(path)


def written_pid(path: Path) -> int:
    return int(path.read_text())


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] != "Z"


def command_of(pid: int) -> str:
    """The command line of a process; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


async def ended(attempt: Attempt, seconds: float = 15) -> Outcome:
    async with asyncio.timeout(seconds):
        return await attempt.wait()
