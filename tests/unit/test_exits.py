"""How the end of a child process is noticed."""

from __future__ import annotations

import asyncio
import os

import pytest

from reproq_listen.executors.per_task.fork import can_fork
from reproq_listen.executors.process.exits import ExitWatch
from tests.support.executing import until


@pytest.fixture(params=["pidfd", "thread"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How ends are noticed: with a pidfd, or with a thread where pidfds are forbidden."""
    if request.param == "thread":
        monkeypatch.setattr(os, "pidfd_open", forbidden)
    return str(request.param)


def forbidden(pid: int) -> int:
    raise PermissionError(1, f"no pidfd for {pid}")


def test_exit_is_reported_while_the_pid_is_still_held(way: str) -> None:
    """At the callback the process is dead but not reaped, so the number of its group is safe to signal."""
    pid = os.posix_spawn("/bin/true", ["true"], {})

    async def main() -> None:
        seen = asyncio.Event()
        ExitWatch(asyncio.get_running_loop(), pid, seen.set)
        await until(seen.is_set, f"the end is reported with a {way}")
        os.kill(pid, 0)

    asyncio.run(main())
    assert os.waitpid(pid, 0) == (pid, 0)


def test_closed_watch_does_not_call_back(way: str) -> None:
    """Also if the process ends right afterwards."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "0.05"], {})

    async def main() -> None:
        watches: list[str] = []
        closed = ExitWatch(asyncio.get_running_loop(), pid, lambda: watches.append("closed"))
        ExitWatch(asyncio.get_running_loop(), pid, lambda: watches.append("open"))
        closed.close()
        await until(lambda: watches, f"the end is reported with a {way}")
        await asyncio.sleep(0.05)
        assert watches == ["open"]

    asyncio.run(main())
    os.waitpid(pid, 0)


def test_fork_needs_pidfds(way: str) -> None:
    """A thread can only wait for children of its own process."""
    assert can_fork() == (way == "pidfd")
