"""Hints for the claims of a busy worker: when there is one, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from reproq_listen.model import ClaimedTask
from reproq_listen.worker.positions import StreamPositions

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def claimed(priority: int, since: str, queue: str = "default") -> ClaimedTask:
    return ClaimedTask(1, uuid4(), queue, priority, "a.b", "{}", 1, 3, 900, NOW, timedelta(0), 0, "", since)


@pytest.fixture
def positions() -> StreamPositions:
    return StreamPositions()


def test_positions_give_the_last_task_of_each_stream(positions: StreamPositions) -> None:
    """After a full claim of 10 ms the next 200 ms are claimed behind what was taken; then everything is looked at."""
    tasks = [claimed(0, "a"), claimed(5, "b"), claimed(0, "c")]
    positions.claimed(tasks, is_full=True, hinted=False, sent_at=10.0, now=10.01)
    hint = json.loads(positions.hint(10.15) or "")
    assert [(stream["priority"], stream["since"]) for stream in hint] == [(0, "c"), (5, "b")]
    assert positions.hint(10.22) is None


def test_positions_of_a_slow_claim_last_a_second_at_most(positions: StreamPositions) -> None:
    """Late commits and returned tasks are found within a second, whatever a claim costs."""
    positions.claimed([claimed(0, "a")], is_full=True, hinted=False, sent_at=10.0, now=11.0)
    assert positions.hint(11.9) is not None
    assert positions.hint(12.1) is None


def test_positions_are_dropped_when_there_is_no_more(positions: StreamPositions) -> None:
    """A claim that was not full is followed by one that looks at everything."""
    positions.claimed([claimed(0, "a")], is_full=True, hinted=False, sent_at=10.0, now=11.0)
    positions.claimed([claimed(0, "b")], is_full=False, hinted=True, sent_at=11.0, now=11.1)
    assert positions.hint(11.2) is None


def test_positions_move_on_with_hinted_claims(positions: StreamPositions) -> None:
    """A claim with a hint moves the positions, and not the time of the next full look."""
    positions.claimed([claimed(0, "a")], is_full=True, hinted=False, sent_at=10.0, now=11.0)
    positions.claimed([claimed(0, "b")], is_full=True, hinted=True, sent_at=11.0, now=11.1)
    assert json.loads(positions.hint(11.2) or "")[0]["since"] == "b"
    assert positions.hint(12.1) is None


def test_positions_of_too_many_streams_give_no_hint(positions: StreamPositions) -> None:
    """A hint with many streams would cost what it saves."""
    tasks = [claimed(number, "a") for number in range(30)]
    positions.claimed(tasks, is_full=True, hinted=False, sent_at=10.0, now=11.0)
    assert positions.hint(11.1) is None
