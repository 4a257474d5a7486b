"""Bounded keeping of output, and the one frame on the result pipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.executors.process.pipes import Frame, Output
from reproq_listen.protocol.executor import NOTE_MAGIC, frame


@given(st.lists(st.binary(max_size=40)), st.integers(0, 50), st.integers(1, 50), st.integers(1, 100))
def test_output_keeps_its_beginning_and_its_end(chunks: list[bytes], head: int, tail: int, most: int) -> None:
    """However it comes in: all counted, the first `head` and the last `tail` bytes of the rest kept."""
    output = Output(head, tail)
    for chunk in chunks:
        output.feed(chunk)
    whole = b"".join(chunks)
    assert output.total == len(whole)
    assert output.kept() == (whole[:head], whole[head:][-tail:])
    end = output.end(most)
    assert whole.endswith(end)
    assert len(end) == min(most, len(whole) if len(whole) <= head + tail else tail)


def test_output_does_not_grow() -> None:
    """64 MiB in, less than a quarter of a MiB kept."""
    output = Output(1000, 1000)
    for _ in range(1024):
        output.feed(b"x" * (64 << 10))
    assert output.total == 64 << 20
    assert len(output._tail) < 256 << 10


def fed(data: bytes, size: int, limit: int = 100) -> tuple[Frame, list[int]]:
    """A frame given its bytes in pieces, and how often it said that it was whole."""
    whole: list[int] = []
    received = Frame(limit, lambda: whole.append(1))
    for start in range(0, len(data), size):
        received.feed(data[start : start + size])
    return received, whole


@given(st.binary(max_size=100), st.integers(1, 120))
def test_frame_arrives_in_pieces(body: bytes, size: int) -> None:
    """Also byte by byte; it says once that it is whole."""
    received, whole = fed(frame(body), size)
    assert received.body() == body
    assert whole == [1]


@given(st.binary(min_size=1, max_size=100), st.data())
def test_short_frame_is_no_frame(body: bytes, data: st.DataObject) -> None:
    """A child that died while it wrote has said nothing."""
    sent = frame(body)
    cut = data.draw(st.integers(0, len(sent) - 1))
    received, whole = fed(sent[:cut], 7)
    assert received.body() is None
    assert whole == []


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
def test_what_is_not_one_frame_is_refused(data: bytes, reason: str) -> None:
    """Two frames, something else, or one beyond the limit, in pieces of any size; never kept beyond the limit."""
    for size in (1, 5, 1000):
        received, _ = fed(data, size)
        with pytest.raises(ValueError, match=reason):
            received.body()
        assert len(received._data) <= 108


def test_empty_frame_is_an_empty_body() -> None:
    """Length 0: it is for the envelope's reader to say that this is no envelope."""
    assert fed(frame(b""), 3)[0].body() == b""


@given(st.lists(st.binary(max_size=50), max_size=5), st.binary(max_size=100), st.integers(1, 60))
def test_notes_come_before_the_result_however_they_are_cut(notes: list[bytes], body: bytes, size: int) -> None:
    """Each is handed on once and whole, and neither counts as the other."""
    sent = b"".join(frame(note, NOTE_MAGIC) for note in notes) + frame(body)
    taken: list[bytes] = []
    received = Frame(100, lambda: None, taken.append)
    for start in range(0, len(sent), size):
        received.feed(sent[start : start + size])
    assert taken == notes
    assert received.body() == body


def test_notes_without_a_result_are_no_result() -> None:
    """A task that said something and died has given nothing; half a note neither."""
    received = Frame(100, lambda: None)
    received.feed(frame(b"{}", NOTE_MAGIC) + NOTE_MAGIC[:2])
    assert received.body() is None
    received.feed(NOTE_MAGIC[2:] + b"\0\0")
    assert received.body() is None


def test_notes_do_not_pile_up() -> None:
    """A thousand of 60 KiB: none is kept here."""
    received = Frame(100, lambda: None)
    for _ in range(1000):
        received.feed(frame(b"x" * (60 << 10), NOTE_MAGIC))
    assert len(received._data) == 0
