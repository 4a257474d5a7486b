"""The channels between worker and child, with a real child and no pool around them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from reproq_listen.executors.pool.channels import ChildChannels
from reproq_listen.model import ClaimedTask
from reproq_listen.protocol import pool as protocol
from tests.support.database import ROOT
from tests.support.executing import until
from tests.support.pooling import MODULE, in_loop, task

SERVE = "import sys; from reproq_listen.child.pool_server import prepare; prepare()(*map(int, sys.argv[1:]))"


def start(fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SERVE, *map(str, fds)], pass_fds=fds, cwd=ROOT)


@contextlib.asynccontextmanager
async def child() -> AsyncIterator[ChildChannels]:
    """A child on its channels, with settings."""
    channels = ChildChannels(asyncio.get_running_loop(), lambda: None)
    fds = channels.fds_for_child[3:]
    process = start(fds)
    channels.child_started()
    channels.send_settings([MODULE], 1 << 20, 0)
    try:
        yield channels
    finally:
        channels.close_socket()
        assert process.wait(10) == 0
        channels.close()


def batch(first: int, *tasks: ClaimedTask) -> list[tuple[int, ClaimedTask, bytes]]:
    return [(slot, what, what.spec.encode()) for slot, what in enumerate(tasks, first)]


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


async def slots(channels: ChildChannels, count: int) -> list[int]:
    """The slots of this number of ends, in the order in which they came."""
    found: list[int] = []

    def are_there() -> bool:
        found.extend(slot for kind, slot, *_ in channels.records(1 << 20) if kind in protocol.ENDS)
        return len(found) >= count

    await until(are_there, f"{count} ends")
    return found


def test_tasks_taken_back_do_not_run_also_if_a_new_batch_follows_at_once(tmp_path: Path) -> None:
    """The tail of a batch is taken back while its first task runs. Tokens of later batches come before the child reads
    the next one: it must not use them for the tail."""
    log = tmp_path / "log"

    async def main() -> None:
        async with child() as channels:
            channels.send_batch(1, batch(1, task("note", str(log), 0.5), *[task("note", str(log)) for _ in range(5)]))
            await until(lambda: lines(log) == 1, "the first one runs")
            assert channels.take_back() == 5
            channels.send_batch(2, batch(11, task("note", str(log)), task("note", str(log))))
            assert channels.take_back() == 2
            channels.send_batch(3, batch(21, task("note", str(log))))
            assert await slots(channels, 2) == [1, 21]
            assert lines(log) == 2
            channels.send_batch(4, batch(31, task("note", str(log))))
            assert await slots(channels, 1) == [31]

    in_loop(main())


def test_numbers_of_batches_wrap(tmp_path: Path) -> None:
    """A token holds the number of its batch modulo 256."""
    log = tmp_path / "log"

    async def main() -> None:
        async with child() as channels:
            for number in range(250, 270):
                channels.send_batch(number, batch(number, task("note", str(log))))
            assert await slots(channels, 20) == list(range(250, 270))

    in_loop(main())


def test_results_can_be_read_before_the_child_wakes_the_worker(tmp_path: Path) -> None:
    """Results that came before a long task of the same batch can be read while that runs."""
    log = tmp_path / "log"

    async def main() -> None:
        async with child() as channels:
            channels.send_batch(1, batch(1, task("pid"), task("pid"), task("note", str(log), 1.0)))
            await until(lambda: lines(log) == 1, "the long one runs")
            assert await slots(channels, 2) == [1, 2]
            assert await slots(channels, 1) == [3]

    in_loop(main())


def test_results_larger_than_the_pipe_come_in_pieces() -> None:
    """The child waits for room in the pipe, and its records stay whole."""

    async def main() -> None:
        async with child() as channels:
            channels.send_batch(1, batch(1, *[task("large", 300_000) for _ in range(4)]))
            assert await slots(channels, 4) == [1, 2, 3, 4]

    in_loop(main())
