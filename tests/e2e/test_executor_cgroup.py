"""What wipes its environment, makes sessions of its own and loses its parent does not outlive its attempt or its
worker, where the worker may make a control group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest
from psycopg.types.json import Jsonb

from reproq_listen.executors.cleanup.cgroup import ControlGroup
from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.model import StopReason
from tests.support.database import Database, wait_until
from tests.support.executing import (
    command_of,
    ended,
    error_of,
    executor,
    is_alive,
    outcome_of,
    pid_in,
    task,
    until,
    value_of,
)
from tests.support.workers import WorkerProcess

TASKS = "tests.apps.tasks"


@pytest.fixture(autouse=True)
def folder() -> Path:
    """That of this process's own control group, below which it may make others."""
    try:
        group = ControlGroup("test")
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    group.folder.rmdir()
    return group.folder.parent


def folder_of(process: WorkerProcess) -> Path:
    (started,) = (event for event in process.events if event["event"] == "worker_started")
    return Path(started["control_group"])


def enqueue_vanishing(database: Database, path: Path) -> None:
    with database.connect() as connection:
        row = {"task_path": f"{TASKS}.vanish", "args": [str(path), 600]}
        connection.execute("select from reproq_enqueue_many(%s)", [Jsonb([row])])


@pytest.mark.parametrize("mode", ["spawn", "fork", "pool"])
def test_nothing_outlives_a_killed_worker(database: Database, tmp_path: Path, mode: str) -> None:
    """Task, forkserver and daemon are dead within 2 s of SIGKILL, and the group is removed."""
    with WorkerProcess(database.dsn, "--executor", mode, allowed=TASKS).ready() as process:
        enqueue_vanishing(database, tmp_path / "pid")
        wait_until((tmp_path / "pid").exists, what="the daemon runs")
        pids = {int((tmp_path / "pid").read_text())}
        wait_until(lambda: Path(f"/proc/{min(pids)}/environ").read_bytes() == b"", what="its environment is empty")
        pids |= {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        process.signal(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="all are dead", seconds=2)
        wait_until(lambda: not folder_of(process).exists(), what="the group is gone")


def test_cgroup_new_guard_knows_the_group(database: Database, tmp_path: Path) -> None:
    """A task that kills the guard, and then the worker, gains nothing."""
    with WorkerProcess(database.dsn, "--executor", "fork", allowed=TASKS).ready() as process:

        def guards() -> list[int]:
            children = (child.pid for child in psutil.Process(process.pid).children())
            return [pid for pid in children if "guard_script.py" in command_of(pid)]

        enqueue_vanishing(database, tmp_path / "pid")
        wait_until((tmp_path / "pid").exists, what="the daemon runs")
        (first,) = guards()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: guards() not in ([], [first]), what="there is a new guard")
        process.signal(signal.SIGKILL)
        daemon = int((tmp_path / "pid").read_text())
        wait_until(lambda: not is_alive(daemon), what="the daemon is dead", seconds=2)


def test_cgroup_clean_end_leaves_no_group(database: Database, tmp_path: Path) -> None:
    """The daemon of a task that was stopped, and the folder, are gone when the worker is."""
    options = ("--executor", "fork", "--shutdown-timeout", "0s", "--grace-seconds", "0.2")
    with WorkerProcess(database.dsn, *options, allowed=TASKS).ready() as process:
        enqueue_vanishing(database, tmp_path / "pid")
        wait_until((tmp_path / "pid").exists, what="the daemon runs")
        assert folder_of(process).exists()
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not is_alive(int((tmp_path / "pid").read_text()))
        assert not folder_of(process).exists()


@pytest.mark.usefixtures("each_mode")
@pytest.mark.parametrize("reason", list(StopReason))
def test_nothing_outlives_its_attempt(reason: StopReason, tmp_path: Path) -> None:
    """Timeout, cancel, lost lease and shutdown alike; the executor goes on."""

    async def main() -> None:
        async with executor() as running:
            attempt = await running.start(task("vanish", str(tmp_path / "pid"), 600))
            daemon = await pid_in(tmp_path / "pid")
            attempt.stop(reason)
            assert error_of(await ended(attempt)).kind == reason.value
            await until(lambda: not is_alive(daemon), "the daemon is dead", 3)
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3

    asyncio.run(main())


@pytest.mark.usefixtures("each_mode")
def test_nothing_outlives_a_success(tmp_path: Path) -> None:
    async def main() -> None:
        async with executor() as running:
            assert value_of(await outcome_of(running, task("vanish", str(tmp_path / "pid")))) == "left"
            daemon = await pid_in(tmp_path / "pid")
            await until(lambda: not is_alive(daemon), "the daemon is dead", 3)

    asyncio.run(main())


@pytest.mark.usefixtures("each_mode")
def test_daemon_of_a_running_task_is_spared(tmp_path: Path) -> None:
    """Also when other tasks end. A daemon that may be of either task is killed when both are over."""

    async def main() -> None:
        async with executor() as running:
            first = await running.start(task("vanish", str(tmp_path / "first"), 600))
            daemon = await pid_in(tmp_path / "first")
            assert value_of(await outcome_of(running, task("vanish", str(tmp_path / "second")))) == "left"
            other = await pid_in(tmp_path / "second")
            await sweeps(running, 2)  # what the first one kills is surely dead at the second
            assert is_alive(daemon)
            assert is_alive(other)
            first.kill()
            await ended(first)
            await until(lambda: not is_alive(daemon) and not is_alive(other), "the daemons are dead", 3)

    asyncio.run(main())


async def sweeps(running: PerTaskExecutor, count: int) -> None:
    for _ in range(count):
        before = running.sweeps
        await outcome_of(running, task("add", 1, 2))
        await until(lambda before=before: running.sweeps > before, "orphans have been looked for")  # type: ignore[misc]


@pytest.mark.usefixtures("each_mode")
def test_empty_groups_of_dead_workers_are_removed(folder: Path) -> None:
    """Those of living workers stay, and young ones: their pid may live in another container."""
    name = f"test{os.getpid()}"
    dead, young, living = (folder / f"reproq-{pid}-{name}" for pid in (2**22 + 1, 2**22 + 2, os.getpid()))
    for group in (dead, young, living):
        group.mkdir()
    os.utime(dead, (0, 0))
    os.utime(living, (0, 0))

    async def main() -> None:
        async with executor():
            assert [group.exists() for group in (dead, young, living)] == [False, True, True]

    try:
        asyncio.run(main())
    finally:
        for group in (dead, young, living):
            with contextlib.suppress(FileNotFoundError):
                group.rmdir()
