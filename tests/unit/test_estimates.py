"""How many tasks share a batch, and how many are claimed ahead."""

from __future__ import annotations

from reproq_listen.executors.pool.estimates import MAX_PER_CLAIM, DurationEstimates


def estimates_of(seconds: float, times: int = 200) -> DurationEstimates:
    estimates = DurationEstimates()
    for _ in range(times):
        estimates.task_took("a", seconds)
    return estimates


def test_room_for_unknown_and_long_tasks_is_what_can_start() -> None:
    """Nothing is claimed that would have to wait."""
    for estimates in (DurationEstimates(), estimates_of(0.5), estimates_of(60)):
        for claimed in range(5):
            assert estimates.room(4, claimed, 0) == 4 - claimed
        assert not estimates.fits(estimates.seconds("a"))


def test_room_for_short_tasks_is_many_or_none() -> None:
    """Claimed tasks take the children 50 ms at most, and a claim gets enough tasks to be worth its statement."""
    estimates = estimates_of(0.000_05)
    assert estimates.room(4, 0, 0) == MAX_PER_CLAIM
    assert estimates.room(4, 400, 0) == 0
    estimates = estimates_of(0.005)
    assert estimates.room(4, 0, 0) == 40
    assert estimates.room(4, 39, 0) == 0
    assert estimates.room(4, 20, 0) == 20


def test_room_does_not_count_stuck_children() -> None:
    """If all are stuck nothing is claimed, even if tasks were short."""
    estimates = estimates_of(0.000_05)
    assert estimates.room(4, 4, 4) == 0
    assert estimates.room(4, 4, 3) > 0
    estimates = estimates_of(0.005)
    assert estimates.room(4, 3, 3) == 10


def test_estimate_rises_at_once_and_falls_slowly() -> None:
    """After one long task of a path, its tasks are not sent in batches."""
    estimates = estimates_of(0.000_05)
    assert estimates.fits(estimates.seconds("a"))
    estimates.task_took("a", 1.0)
    assert not estimates.fits(estimates.seconds("a"))
    for _ in range(100):
        estimates.task_took("a", 0.000_05)
    assert estimates.fits(estimates.seconds("a"))
    estimates.task_is_running("a", 0.5)
    assert not estimates.fits(estimates.seconds("a"))


def test_estimates_one_long_task_does_not_end_batches_of_other_paths() -> None:
    """The mean of all tasks counts, and one of an hour counts as 20 ms."""
    estimates = estimates_of(0.000_05)
    estimates.task_took("b", 3600.0)
    assert estimates.room(4, 0, 0) > 100


def test_batch_is_a_share_of_the_waiting_work() -> None:
    """At least one millisecond of work, at most ten."""
    estimates = DurationEstimates()
    assert estimates.batch_seconds(0.000_1, 4) == 0.001
    assert estimates.batch_seconds(0.020, 4) == 0.005
    assert estimates.batch_seconds(10.0, 1) == 0.010
