"""The channels between worker and child, with a real child and nothing of the pool around them."""

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

SERVE = "import sys; from reproq_listen.executors.pool_child import serve; serve(*map(int, sys.argv[1:]))"


def start(fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SERVE, *map(str, fds)], pass_fds=fds, cwd=ROOT)


@contextlib.asynccontextmanager
async def child() -> AsyncIterator[ChildChannels]:
    """A child on its channels, greeted."""
    channels = ChildChannels(asyncio.get_running_loop(), lambda: None)
    fds = channels.fds_for_child[3:]
    process = start(fds)
    channels.child_has_its_ends()
    channels.send_greeting([MODULE], 1 << 20, 0)
    try:
        yield channels
    finally:
        channels.close_link()
        assert process.wait(10) == 0
        channels.close()


def frame(first: int, *tasks: ClaimedTask) -> list[tuple[int, ClaimedTask, bytes]]:
    return [(slot, what, what.spec.encode()) for slot, what in enumerate(tasks, first)]


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


async def slots(channels: ChildChannels, count: int) -> list[int]:
    """The slots of so many ends, in the order in which they came."""
    found: list[int] = []

    def are_there() -> bool:
        found.extend(slot for kind, slot, *_ in channels.records(1 << 20) if kind in protocol.ENDS)
        return len(found) >= count

    await until(are_there, f"{count} ends")
    return found


def test_what_is_taken_back_does_not_run_also_when_a_new_frame_follows_at_once(tmp_path: Path) -> None:
    """The tail of a frame is taken back while its first task runs, and tokens of later frames come before the child
    looks: it must not spend them on the tail."""
    log = tmp_path / "log"

    async def main() -> None:
        async with child() as channels:
            channels.give(1, frame(1, task("note", str(log), 0.5), *[task("note", str(log)) for _ in range(5)]))
            await until(lambda: lines(log) == 1, "the first one runs")
            assert channels.take_back() == 5
            channels.give(2, frame(11, task("note", str(log)), task("note", str(log))))
            assert channels.take_back() == 2
            channels.give(3, frame(21, task("note", str(log))))
            assert await slots(channels, 2) == [1, 21]
            assert lines(log) == 2
            channels.give(4, frame(31, task("note", str(log))))
            assert await slots(channels, 1) == [31]

    in_loop(main())


def test_numbers_of_frames_wrap(tmp_path: Path) -> None:
    """A token holds the number of its frame modulo 256."""
    log = tmp_path / "log"

    async def main() -> None:
        async with child() as channels:
            for number in range(250, 270):
                channels.give(number, frame(number, task("note", str(log))))
            assert await slots(channels, 20) == list(range(250, 270))

    in_loop(main())


def test_ends_are_known_before_anybody_is_told(tmp_path: Path) -> None:
    """What ended before a long task of the same frame can be read while that runs."""
    log = tmp_path / "log"

    async def main() -> None:
        async with child() as channels:
            channels.give(1, frame(1, task("pid"), task("pid"), task("note", str(log), 1.0)))
            await until(lambda: lines(log) == 1, "the long one runs")
            assert await slots(channels, 2) == [1, 2]
            assert await slots(channels, 1) == [3]

    in_loop(main())


def test_results_larger_than_the_pipe_come_through_piece_by_piece() -> None:
    """The child waits for room, and what it says in between is not torn."""

    async def main() -> None:
        async with child() as channels:
            channels.give(1, frame(1, *[task("large", 300_000) for _ in range(4)]))
            assert await slots(channels, 4) == [1, 2, 3, 4]

    in_loop(main())
