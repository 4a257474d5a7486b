"""The guard process, without an executor around it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from reproq_listen.executors.cleanup.guard import Guard
from tests.support.executing import is_alive, until


@pytest.fixture
def group() -> Iterator[int]:
    """A process group of one process."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as leader:
        yield leader.pid
        leader.kill()


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
