"""Lines for a reader that may block: each is written whole, none blocks the writer, dropped ones are counted."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Callable, Iterator

import pytest

from reproq_listen.logs.line_writer import MAX_BYTES, LineWriter


def gap(count: int) -> str:
    return f"{count} dropped"


@pytest.fixture(params=[os.pipe, pty.openpty])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """The two ends, to read and to write, of something with a bounded buffer."""
    pair: Callable[[], tuple[int, int]] = request.param
    read, write = pair()
    yield read, write
    os.close(read)
    os.close(write)


def lines_of(fd: int, last: str) -> list[str]:
    """Read until this line has come."""
    text = b""
    while not text.replace(b"\r", b"").endswith(f"{last}\n".encode()):
        text += os.read(fd, 1 << 16)
    return text.decode().splitlines()


def test_line_writer_writes_to_a_ready_descriptor_without_a_thread() -> None:
    """The line is there even if the process dies right after: no thread has to run first."""
    read, write = os.pipe()
    writer = LineWriter(write, gap)
    before = threading.active_count()
    assert writer.write("a")
    assert os.read(read, 100) == b"a\n"
    assert threading.active_count() == before


def test_line_writer_keeps_lines_for_a_slow_reader_in_order(ends: tuple[int, int]) -> None:
    """Long lines and short ones, each whole, once it reads."""
    read, write = ends
    writer = LineWriter(write, gap)
    lines = [f"{number} {'x' * (number % 7 * 1000)}" for number in range(100)]
    assert all(writer.write(line) for line in lines)
    assert not writer.flush(0)
    assert lines_of(read, lines[-1]) == lines
    assert writer.flush(5)


def test_line_writer_drops_and_counts_lines_beyond_its_limit(ends: tuple[int, int]) -> None:
    """One line with their number takes the place of the dropped lines; later lines are written again."""
    read, write = ends
    writer = LineWriter(write, gap)
    taken = [writer.write(f"{number} {'x' * 3000}") for number in range(MAX_BYTES // 2000)]
    kept = taken.index(False)
    assert not any(taken[kept:])
    assert kept > MAX_BYTES // 4000
    found = lines_of(read, gap(len(taken) - kept))
    assert [line.split()[0] for line in found[:-1]] == [str(number) for number in range(kept)]
    assert writer.flush(5)
    assert writer.write("afterwards")
    assert lines_of(read, "afterwards") == ["afterwards"]


def test_line_writer_ignores_a_closed_reader() -> None:
    """Neither a reader that is gone before the line nor one that goes while lines are kept is an error."""
    read, write = os.pipe()
    writer = LineWriter(write, gap)
    assert all(writer.write("x" * 1000) for _ in range(100))
    os.close(read)
    assert writer.flush(5)
    assert writer.write("x")


def test_line_writer_writes_a_long_line_to_a_file_in_one_piece(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Programs that append to one file do not split each other's lines."""
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("ab") as file:
        assert LineWriter(file.fileno(), gap).write("x" * 100_000)
    assert path.stat().st_size == 100_001
