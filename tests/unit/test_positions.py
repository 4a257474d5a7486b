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
    """A claim that was not full is followed by one that looks at everything, at once."""
    positions.claimed([claimed(0, "a")], is_full=True, hinted=False, sent_at=10.0, now=10.004)
    positions.claimed([claimed(0, "b")], is_full=False, hinted=True, sent_at=10.004, now=10.005)
    assert positions.full_look_in(10.005, has_found=True) == 0
    assert positions.hint(10.006) is None


def test_positions_stay_while_full_looks_are_slow(positions: StreamPositions) -> None:
    """An idle worker takes new tasks with a hint; full looks take a twentieth of the time."""
    positions.claimed([claimed(0, "a")], is_full=False, hinted=False, sent_at=10.0, now=10.01)
    positions.claimed([claimed(0, "b")], is_full=False, hinted=True, sent_at=10.05, now=10.051)
    assert positions.full_look_in(10.051, has_found=True) == pytest.approx(0.159)
    assert json.loads(positions.hint(10.1) or "")[0]["since"] == "b"
    assert positions.hint(10.22) is None
    positions.claimed([], is_full=False, hinted=False, sent_at=10.22, now=10.23)
    assert json.loads(positions.hint(10.3) or "")[0]["since"] == "b"


def test_positions_full_look_comes_soon_after_a_hint_found_nothing(positions: StreamPositions) -> None:
    """The worker was woken for a task of another stream, or for one that was unblocked."""
    positions.claimed([claimed(0, "a")], is_full=False, hinted=False, sent_at=10.0, now=10.01)
    assert positions.full_look_in(10.02, has_found=False) == pytest.approx(0.01)
    assert positions.full_look_in(10.03, has_found=False) == 0


def test_positions_full_look_comes_at_once_when_the_last_one_left_tasks(positions: StreamPositions) -> None:
    """Slots do not stay free while tasks of other streams wait."""
    positions.claimed([claimed(0, "a")], is_full=True, hinted=False, sent_at=10.0, now=10.1)
    assert positions.full_look_in(10.11, has_found=True) == 0


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
