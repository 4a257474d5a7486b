"""Output that is kept within bounds, and the frames on the result pipe."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.executors.process.pipes import FrameDecoder, OutputBuffer
from reproq_listen.protocol.executor import METADATA_MAGIC, frame


@given(st.lists(st.binary(max_size=40)), st.integers(0, 50), st.integers(1, 50), st.integers(1, 100))
def test_output_keeps_its_beginning_and_its_end(chunks: list[bytes], head: int, tail: int, count: int) -> None:
    """In whatever pieces it comes: all counted, the first `head` bytes and the last `tail` bytes of the rest kept."""
    output = OutputBuffer(head, tail)
    for chunk in chunks:
        output.feed(chunk)
    whole = b"".join(chunks)
    assert output.total == len(whole)
    captured = output.captured()
    assert (captured.head, captured.tail) == (whole[:head], whole[head:][-tail:])
    end = output.last(count)
    assert whole.endswith(end)
    assert len(end) == min(count, len(whole) if len(whole) <= head + tail else tail)


def test_output_does_not_grow() -> None:
    """64 MiB in, less than a quarter of a MiB kept."""
    output = OutputBuffer(1000, 1000)
    with memory_bounded(256 << 10):
        for _ in range(1024):
            output.feed(b"x" * (64 << 10))
    assert output.total == 64 << 20


@contextmanager
def memory_bounded(limit: int) -> Iterator[None]:
    """What is allocated and kept in this block has at most this number of bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[0] < limit
    finally:
        tracemalloc.stop()


def fed(data: bytes, size: int, limit: int = 100) -> tuple[FrameDecoder, list[int]]:
    """A decoder that was fed these bytes in pieces, and its calls of `on_result`."""
    calls: list[int] = []
    decoder = FrameDecoder(limit, lambda: calls.append(1))
    for start in range(0, len(data), size):
        decoder.feed(data[start : start + size])
    return decoder, calls


@given(st.binary(max_size=100), st.integers(1, 120))
def test_frame_arrives_in_pieces(body: bytes, size: int) -> None:
    """Also byte by byte; `on_result` is called once."""
    decoder, calls = fed(frame(body), size)
    assert decoder.body() == body
    assert calls == [1]


@given(st.binary(min_size=1, max_size=100), st.data())
def test_incomplete_frame_is_no_frame(body: bytes, data: st.DataObject) -> None:
    """A child that died while it wrote has given no result."""
    sent = frame(body)
    cut = data.draw(st.integers(0, len(sent) - 1))
    decoder, calls = fed(sent[:cut], 7)
    assert decoder.body() is None
    assert calls == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(b"a") + b"x", "after the frame"),
        (frame(b"a") + frame(b"b"), "after the frame"),
        (b"garbage that is long enough", "other than a frame"),
        (b"g", "other than a frame"),
        (b"RQF2" + b"\0\0\0\1" + b"a", "other than a frame"),
        (frame(b"x" * 101), "101 bytes; the limit is 100"),
        (b"RQF1" + b"\xff\xff\xff\xff" + b"x" * 1000, "4294967295 bytes"),
    ],
)
def test_pipes_what_is_not_one_frame_is_refused(data: bytes, reason: str) -> None:
    """Two frames, something else, or one beyond the limit, in pieces of any size."""
    for size in (1, 5, 1000):
        decoder, _ = fed(data, size)
        with pytest.raises(ValueError, match=reason):
            decoder.body()


def test_frame_beyond_the_limit_is_not_kept() -> None:
    """64 MiB where 100 bytes are allowed."""
    decoder = FrameDecoder(100, lambda: None)
    with memory_bounded(64 << 10):
        decoder.feed(frame(b"x" * 101)[:108])
        for _ in range(1024):
            decoder.feed(b"x" * (64 << 10))


def test_empty_frame_is_an_empty_body() -> None:
    """Length 0: that it is no envelope is for the envelope's decoder to say."""
    assert fed(frame(b""), 3)[0].body() == b""


@given(st.lists(st.binary(max_size=50), max_size=5), st.binary(max_size=100), st.integers(1, 60))
def test_metadata_comes_before_the_result_however_it_is_cut(metadata: list[bytes], body: bytes, size: int) -> None:
    """Each frame is handed on once and whole, and neither kind counts as the other."""
    sent = b"".join(frame(one, METADATA_MAGIC) for one in metadata) + frame(body)
    taken: list[bytes] = []
    decoder = FrameDecoder(100, lambda: None, taken.append)
    for start in range(0, len(sent), size):
        decoder.feed(sent[start : start + size])
    assert taken == metadata
    assert decoder.body() == body


def test_metadata_alone_is_no_result() -> None:
    """A task that saved metadata and died has given no result; nor has one that died within a frame of metadata."""
    decoder = FrameDecoder(100, lambda: None)
    decoder.feed(frame(b"{}", METADATA_MAGIC) + METADATA_MAGIC[:2])
    assert decoder.body() is None
    decoder.feed(METADATA_MAGIC[2:] + b"\0\0")
    assert decoder.body() is None


def test_metadata_does_not_pile_up() -> None:
    """A thousand frames of 60 KiB: none is kept here."""
    decoder = FrameDecoder(100, lambda: None)
    sent = frame(b"x" * (60 << 10), METADATA_MAGIC)
    with memory_bounded(256 << 10):
        for _ in range(1000):
            decoder.feed(sent)


def test_oversized_metadata_spoils_the_result_not_the_worker() -> None:
    """A frame of metadata that announces more than 64 KiB is none: the bytes are not a frame."""
    decoder = FrameDecoder(100, lambda: None)
    decoder.feed(METADATA_MAGIC + (1 << 20).to_bytes(4, "big") + frame(b"{}"))
    with pytest.raises(ValueError, match="something other than a frame"):
        decoder.body()
