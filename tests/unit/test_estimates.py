"""How many tasks travel together and how many are claimed ahead, and the records that come back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.executors.pool.estimates import MAX_PER_CLAIM, DurationEstimates
from reproq_listen.protocol import pool as protocol


def pace_of(seconds: float, times: int = 200) -> DurationEstimates:
    estimates = DurationEstimates()
    for _ in range(times):
        estimates.took("a", seconds)
    return estimates


def test_of_unknown_and_long_tasks_exactly_what_can_start_is_claimed() -> None:
    """Nothing is claimed that would have to wait."""
    for estimates in (DurationEstimates(), pace_of(0.5), pace_of(60)):
        for held in range(5):
            assert estimates.room(4, held, 0) == 4 - held
        assert not estimates.fits(estimates.seconds("a"))


def test_of_short_tasks_a_crowd_is_claimed_or_none() -> None:
    """What is in hand takes the children 50 ms at most, and a claim is worth its statement."""
    estimates = pace_of(0.000_05)
    assert estimates.room(4, 0, 0) == MAX_PER_CLAIM
    assert estimates.room(4, 400, 0) == 0
    estimates = pace_of(0.005)
    assert estimates.room(4, 0, 0) == 40
    assert estimates.room(4, 39, 0) == 0
    assert estimates.room(4, 20, 0) == 20


def test_children_that_are_stuck_do_not_count() -> None:
    """With all of them stuck nothing is claimed, however short tasks were."""
    estimates = pace_of(0.000_05)
    assert estimates.room(4, 4, 4) == 0
    assert estimates.room(4, 4, 3) > 0
    estimates = pace_of(0.005)
    assert estimates.room(4, 3, 3) == 10


def test_an_estimate_rises_at_once_and_falls_slowly() -> None:
    """A path whose tasks have become long no longer travels in crowds after one of them."""
    estimates = pace_of(0.000_05)
    assert estimates.fits(estimates.seconds("a"))
    estimates.took("a", 1.0)
    assert not estimates.fits(estimates.seconds("a"))
    for _ in range(100):
        estimates.took("a", 0.000_05)
    assert estimates.fits(estimates.seconds("a"))
    estimates.runs("a", 0.5)
    assert not estimates.fits(estimates.seconds("a"))


def test_one_long_task_does_not_end_the_crowds_of_others() -> None:
    """The mean counts, and an hour counts as not more than long."""
    estimates = pace_of(0.000_05)
    estimates.took("b", 3600.0)
    assert estimates.room(4, 0, 0) > 100


def test_work_is_shared_when_it_is_worth_a_message() -> None:
    """A frame holds its share of what waits, but not less than a millisecond and not more than ten."""
    estimates = DurationEstimates()
    assert estimates.batch_seconds(0.000_1, 4) == 0.001
    assert estimates.batch_seconds(0.020, 4) == 0.005
    assert estimates.batch_seconds(10.0, 1) == 0.010


@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_bytes_are_records_or_a_reason(data: bytes, step: int) -> None:
    """Whatever a child writes, in whatever pieces: records, a wait for more, or ValueError; never more is kept than
    one record may hold."""
    buffer = bytearray()
    try:
        for start in range(0, len(data), step):
            buffer += data[start : start + step]
            for kind, _, _, _, body in protocol.records_in(buffer, 100):
                assert kind in protocol.KINDS
                assert len(body) <= (100 if kind in protocol.ENDS else protocol.MAX_OUTPUT_BYTES)
    except ValueError:
        return
    assert len(buffer) <= len(data)


@given(st.lists(st.tuples(st.sampled_from(sorted(protocol.KINDS)), st.binary(max_size=50)), max_size=8), st.data())
def test_records_survive_being_cut_anywhere(said: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """What was written comes out, in order, however the pipe delivers it."""
    stream = b"".join(
        protocol.RECORD.pack(kind, slot, slot * 2, slot * 3, len(body)) + body for slot, (kind, body) in enumerate(said)
    )
    cut = data.draw(st.integers(0, len(stream)))
    buffer = bytearray(stream[:cut])
    found = list(protocol.records_in(buffer, 50))
    buffer += stream[cut:]
    found += protocol.records_in(buffer, 50)
    assert found == [(kind, slot, slot * 2, slot * 3, body) for slot, (kind, body) in enumerate(said)]
    assert not buffer
