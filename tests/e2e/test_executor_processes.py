"""No process outlives its attempt, and none outlives its worker, however either ends."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.model import ClaimedTask
from tests.support.database import ROOT
from tests.support.executing import (
    MODE,
    ended,
    executor,
    is_alive,
    outcome_of,
    pid_in,
    run,
    task,
    until,
    value_of,
    written_pid,
)

pytestmark = pytest.mark.usefixtures("each_mode")


def until_now(condition: Callable[[], object], what: str, seconds: float = 10) -> None:
    """As `until`, outside of a loop."""
    asyncio.run(until(condition, what, seconds))


def my_children() -> set[int]:
    """All children of this process, zombies included."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        if stat[stat.rindex(")") + 2 :].split()[1] == str(os.getpid()):
            found.add(int(name))
    return found


async def sweep_after(running: PerTaskExecutor, what: ClaimedTask) -> None:
    """Run a task, and wait until orphans have been looked for after its end."""
    await outcome_of(running, what)
    before = running.sweeps
    await until(lambda: running.sweeps > before, "a sweep has been made")


def test_child_that_holds_stdout_neither_delays_the_end_nor_survives_it(tmp_path: Path) -> None:
    """The outcome comes when the task's own process ends; its group is killed then."""
    path = tmp_path / "pid"
    began = time.monotonic()
    assert value_of(run(task("leave_a_child", str(path), False))) == "left"
    assert time.monotonic() - began < 5
    until_now(lambda: not is_alive(written_pid(path)), "the child is dead", 2)


@pytest.mark.parametrize(("what", "more"), [("leave_a_child", [True]), ("leave_a_daemon", [])])
def test_child_in_a_session_of_its_own_is_found_and_killed(what: str, more: list[bool], tmp_path: Path) -> None:
    """Setsid escapes the group, not the subreaper; while the executor goes on with other work."""

    async def main() -> None:
        path = tmp_path / "pid"
        async with executor() as running:
            assert value_of(await outcome_of(running, task(what, str(path), *more))) == "left"
            await until(lambda: not is_alive(written_pid(path)), "the escaped child is dead", 3)

    asyncio.run(main())


def test_daemon_of_a_running_task_is_left_alone_until_the_task_ends(tmp_path: Path) -> None:
    """An adopted orphan belongs to its attempt as long as that runs: sweeps caused by others spare it."""

    async def main() -> None:
        async with executor() as running:
            attempt = await running.start(task("keep_a_daemon", str(tmp_path / "pid")))
            daemon = await pid_in(tmp_path / "pid")
            await until(lambda: daemon in my_children(), "the daemon has been adopted")
            for _ in range(2):  # what the first one kills is surely dead at the second
                await sweep_after(running, task("add", 1, 2))
            assert is_alive(daemon)
            attempt.kill()
            await ended(attempt)
            await until(lambda: not is_alive(daemon), "the daemon is dead", 3)

    asyncio.run(main())


def test_dead_orphans_are_reaped_while_the_task_runs(tmp_path: Path) -> None:
    """A subreaper must reap what it adopts, or the process table fills up."""

    async def main() -> None:
        before = my_children()
        async with executor() as running:
            attempt = await running.start(task("ignore_term", str(tmp_path / "pid")))
            await outcome_of(running, task("orphans", 20))
            own = running.own_pids | {await pid_in(tmp_path / "pid")}
            await until(lambda: my_children() - before <= own, "they are reaped", 10)
            attempt.kill()
            await ended(attempt)

    asyncio.run(main())


def test_other_children_of_this_process_are_not_touched() -> None:
    """Neither killed nor reaped: a database server, say, that this process has started itself."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as other:

        async def main() -> None:
            async with executor() as running:
                for _ in range(3):
                    await sweep_after(running, task("add", 1, 2))

        asyncio.run(main())
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)
        assert other.wait() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_nothing_outlives_a_killed_worker(number: signal.Signals, tmp_path: Path) -> None:
    """Tasks that hold the GIL, their children, and grandchildren with sessions of their own are dead within 2 s;
    so is the guard."""
    with small_worker(tmp_path, 3) as (worker, pids):
        worker.send_signal(number)
        worker.wait()
        until_now(lambda: not any(is_alive(pid) for pid in pids), "all are dead", 2)


def test_killed_guard_is_replaced_and_knows_all_groups(tmp_path: Path) -> None:
    """A task that kills the guard, and then the worker, gains nothing."""
    with small_worker(tmp_path, 2) as (worker, pids):
        os.kill(written_pid(tmp_path / "guard"), signal.SIGKILL)
        until_now(lambda: written_pid(tmp_path / "guard") not in pids, "there is a new guard")
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        until_now(lambda: not any(is_alive(pid) for pid in pids), "all are dead", 2)


def test_tasks_die_with_a_worker_and_a_guard_that_are_killed_together(tmp_path: Path) -> None:
    """In `fork`: the process that they were forked from sees it, and ends them."""
    token = MODE.set("fork")
    with small_worker(tmp_path, 2) as (worker, pids):
        for pid in (written_pid(tmp_path / "guard"), worker.pid):
            os.kill(pid, signal.SIGKILL)
        worker.wait()
        in_groups = [written_pid(tmp_path / f"{n}{kind}") for n in range(2) for kind in ("", ".child")]
        try:
            until_now(lambda: not any(is_alive(pid) for pid in in_groups), "all are dead", 2)
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    MODE.reset(token)


@contextlib.contextmanager
def small_worker(directory: Path, count: int) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A worker process that runs `family` tasks; and the pids of all their processes and of its guard."""
    names = [*(f"{n}{kind}" for n in range(count) for kind in ("", ".child", ".escaped")), "guard"]
    command = [sys.executable, "-m", "tests.support.small_worker", str(directory), str(count), MODE.get()]
    with subprocess.Popen(command, cwd=ROOT) as worker:
        try:
            for name in names:
                until_now((directory / name).exists, f"{name} has been started")
            pids = [written_pid(directory / name) for name in names]
            assert all(is_alive(pid) for pid in pids)
            yield worker, pids
        finally:
            worker.kill()


def ignores(pid: int, number: signal.Signals) -> bool:
    """Whether the process ignores this signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_guard_is_not_ended_by_what_ends_a_service(number: signal.Signals) -> None:
    """A signal to everything (systemd, a terminal) must not take the guard before the worker."""

    async def main() -> None:
        async with executor() as running:
            guard = running.guard_pid
            assert guard is not None
            await until(lambda: ignores(guard, number), "the guard has set itself up")
            os.kill(guard, number)
            await outcome_of(running, task("add", 1, 2))
            assert running.guard_pid == guard
            assert is_alive(guard)

    asyncio.run(main())


def test_executor_processes_many_tasks_leave_no_trace() -> None:
    """60 tasks, some failing, some killed, some stopped: no descriptor, no zombie, no task of the loop left."""

    async def main() -> None:
        children = my_children()
        async with executor() as running:
            await outcome_of(running, task("add", 1, 2))
            gc.collect()
            descriptors = len(os.listdir("/proc/self/fd"))
            slots = asyncio.Semaphore(4)

            async def one(name: str, *args: Any) -> None:
                async with slots:
                    await outcome_of(running, task(name, *args))

            work: list[tuple[Any, ...]] = [
                ("add", 1, 2),
                ("fail", "x"),
                ("kill_me", 9),
                ("leave", 0),
                ("echo", "x" * 100_000),
            ] * 12
            await asyncio.gather(*(one(name, *args) for name, *args in work))
            assert len(os.listdir("/proc/self/fd")) == descriptors
            assert my_children() - children == running.own_pids
            assert len(asyncio.all_tasks()) == 1
            assert running.guarded_groups == (running.own_pids | running.ready_pids) - {running.guard_pid}
        assert my_children() <= children

    asyncio.run(main())


def test_lack_of_descriptors_is_an_outcome_not_an_error() -> None:
    """With too few descriptors no process starts; the attempt is given back, nothing is left open, and later tasks
    run."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, children_ahead=0) as running:
            await outcome_of(running, task("add", 1, 2))
            before = len(os.listdir("/proc/self/fd"))
            messages = []
            for free in range(12):
                with descriptors_left(free):
                    outcome = await outcome_of(running, task("add", 1, 2))
                messages.append(outcome.error.message if outcome.error else "")
                assert outcome.error is None or outcome.error.kind == "shutdown"
                assert len(os.listdir("/proc/self/fd")) == before
            assert "Too many open files" in warnings[0]
            assert "Too many open files" in messages[0]
            assert "Too many open files" in messages[5]
            assert messages[-1] == ""

    asyncio.run(main())


@contextlib.contextmanager
def descriptors_left(free: int) -> Iterator[None]:
    """Leave this process this number of descriptors that it may still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
