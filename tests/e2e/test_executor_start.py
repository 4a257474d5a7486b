"""What goes wrong between the decision to run a task and its first line of code: nothing is left, no attempt hangs."""

import asyncio
import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from reproq_listen.executors.forkserver import forkserver as forkservers
from reproq_listen.executors.forkserver.launch import ForkserverProcess
from reproq_listen.executors.per_task import attempt as attempts
from tests.support.executing import MODE, ended, error_of, executor, outcome_of, task, until, value_of


def fails(times: int, error: Exception, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but it fails this often before."""

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal times
        if times:
            times -= 1
            raise error
        return real(*arguments, **named)

    return call


def my_children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_limits_that_cannot_be_set_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No child, no descriptor, and no failed task."""

    async def main() -> None:
        warnings: list[str] = []
        others = my_children()
        async with executor(warnings, memory_bytes=1 << 30) as running:
            await outcome_of(running, task("add", 1, 2))
            before = len(os.listdir("/proc/self/fd"))
            denied = fails(2, PermissionError(errno.EPERM, "not permitted"), resource.prlimit)
            monkeypatch.setattr(resource, "prlimit", denied)
            for _ in range(2):
                error = error_of(await outcome_of(running, task("add", 1, 2)))
                assert (error.kind, "limits cannot be set" in error.message) == ("shutdown", True)
            await until(lambda: my_children() - others == running.own_pids, "no child is left")
            assert len(os.listdir("/proc/self/fd")) == before
            assert not running.is_ready
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3
            assert running.is_ready

    asyncio.run(main())


def test_end_of_a_child_is_noticed_without_a_free_descriptor(each_mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as there is one: a child of the forkserver is no child of this process, which could wait for it."""

    async def main() -> None:
        async with executor(children_ahead=0) as running:
            await outcome_of(running, task("add", 1, 2))
            full = fails(3, OSError(errno.EMFILE, "too many open files"), os.pidfd_open)
            monkeypatch.setattr(os, "pidfd_open", full)
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3

    asyncio.run(main())


def test_attempt_that_cannot_be_watched_ends(each_mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`wait` raises the fault, and the child is dead. It would renew its lease for ever."""

    def broken(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("a fault of ours")

    async def main() -> None:
        async with executor() as running:
            with monkeypatch.context() as patched:
                patched.setattr(attempts, "PipeReader", broken)
                attempt = await running.start(task("sleep", str(tmp_path / "pid")))
                with pytest.raises(RuntimeError, match="a fault of ours"):
                    await ended(attempt)
            assert attempt.state is attempts.AttemptState.ENDED
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3

    asyncio.run(main())


def test_task_of_a_spawned_process_that_dies_before_it_reads_is_given_back(tmp_path: Path) -> None:
    """A Python that cannot start is not the task's failure."""
    python, broken = tmp_path / "python", tmp_path / "broken"
    python.write_text(f'#!/bin/sh\n[ -e {broken} ] && exit 127\nexec {sys.executable} "$@"\n')
    python.chmod(0o700)

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, python_bin=str(python)) as running:
            broken.touch()
            for _ in range(2):
                error = error_of(await outcome_of(running, task("add", 1, 2)))
                assert (error.kind, "died before" in error.message) == ("shutdown", True)
            assert not running.is_ready
            broken.unlink()
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3
            assert running.is_ready

    asyncio.run(main())


def test_unexpected_error_of_a_restart_is_not_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a forkserver no task would ever be claimed again."""
    broken = fails(1, RuntimeError("a fault of ours"), ForkserverProcess)

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings) as running:
            (pid,) = running.own_pids - {running.guard_pid}
            monkeypatch.setattr(forkservers, "ForkserverProcess", broken)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not running.is_ready, "its end is noticed")
            await until(lambda: running.is_ready, "there is a new one")
            assert any("a fault of ours" in warning for warning in warnings)
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3

    token = MODE.set("fork")
    asyncio.run(main())
    MODE.reset(token)
