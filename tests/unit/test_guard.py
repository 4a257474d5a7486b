"""The guard process, without an executor around it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from reproq_listen.executors.cleanup.guard import Guard
from reproq_listen.protocol.executor import TAG_ENV
from tests.support.executing import is_alive, until


@pytest.fixture
def group() -> Iterator[int]:
    """A process group of one process."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as leader:
        yield leader.pid
        leader.kill()


def sleeper(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process in a session of its own."""
    return subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)


def test_stopped_guard_is_replaced(group: int) -> None:
    """A guard that does not read its pipe never blocks the worker. The next one knows all groups."""

    async def main() -> None:
        warnings: list[str] = []
        guard = Guard("test", None, warnings.append)
        guard.ensure()
        stopped = guard.pid
        assert stopped is not None
        os.kill(stopped, signal.SIGSTOP)
        guard.add(group)
        for _ in range(20_000):
            guard.add(2**22 - 1)
        guard.remove(2**22 - 1)
        await until(lambda: guard.pid not in (None, stopped), "there is a new guard")
        assert "does not read" in warnings[0]
        assert guard.groups == {group}
        await guard.close()  # the guard sees what it sees when this process dies
        await until(lambda: not is_alive(group), "the group is dead", 2)

    asyncio.run(main())


def test_guard_kills_what_has_left_its_group_by_its_tag_alone() -> None:
    """Where no control group can be made: processes with the worker's tag, in sessions of their own. No others."""

    async def main() -> None:
        guard = Guard("feedface", None, lambda text: None)
        guard.ensure()
        environments = [{**os.environ, TAG_ENV: f"{tag}.0000000001"} for tag in ("feedface", "feedface", "feedfacf")]
        processes = [sleeper(each) for each in environments]
        try:
            await guard.close()  # the guard sees what it sees when this process dies
            statuses = [process.poll() for process in processes[:2]]
            assert statuses == [-signal.SIGKILL] * 2
            assert processes[2].poll() is None
        finally:
            for process in processes:
                process.kill()
                process.wait()

    asyncio.run(main())
