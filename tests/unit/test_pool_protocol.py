"""Records on the result pipe: read from any pieces, and never more kept than is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.protocol import pool as protocol

MAX_BYTES = 100


@given(st.binary(max_size=300), st.integers(1, 40))
def test_records_in_any_bytes(data: bytes, step: int) -> None:
    """Whatever a child writes, in whatever pieces: records, or ValueError, or less than one record is left over."""
    buffer = bytearray()
    try:
        for start in range(0, len(data), step):
            buffer += data[start : start + step]
            for kind, _, _, _, body in protocol.records_in(buffer, MAX_BYTES):
                assert kind in protocol.KINDS
                assert len(body) <= (MAX_BYTES if kind in protocol.ENDS else protocol.MAX_OUTPUT_BYTES)
            assert is_incomplete(bytes(buffer))
    except ValueError:
        return


def is_incomplete(rest: bytes) -> bool:
    """Whether these bytes are less than one record."""
    if len(rest) < protocol.RECORD.size:
        return True
    size = protocol.RECORD.unpack_from(rest)[-1]
    return len(rest) < protocol.RECORD.size + int(size)


@given(st.lists(st.tuples(st.sampled_from(sorted(protocol.KINDS)), st.binary(max_size=50)), max_size=8), st.data())
def test_records_in_pieces(written: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """Records come out as they were written, in order, wherever the pipe cuts them."""
    stream = b"".join(
        protocol.RECORD.pack(kind, slot, slot * 2, slot * 3, len(body)) + body
        for slot, (kind, body) in enumerate(written)
    )
    cut = data.draw(st.integers(0, len(stream)))
    buffer = bytearray(stream[:cut])
    found = list(protocol.records_in(buffer, 50))
    buffer += stream[cut:]
    found += protocol.records_in(buffer, 50)
    assert found == [(kind, slot, slot * 2, slot * 3, body) for slot, (kind, body) in enumerate(written)]
    assert not buffer
