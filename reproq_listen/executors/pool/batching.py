"""Which tasks are sent to a child together."""

from collections import deque

from reproq_listen.executors.pool.attempt import PoolAttempt
from reproq_listen.executors.pool.child import PoolChild
from reproq_listen.executors.pool.estimates import DurationEstimates

_QUARANTINE_LOSSES = 2


def next_batch(
    waiting: deque[PoolAttempt], child: PoolChild, estimates: DurationEstimates, idle: int
) -> list[PoolAttempt]:
    """Take from the front of `waiting` what this child should get now; at least one task.

    `idle`: the number of children that have no task, with this one. The child must have room for one.
    """
    max_seconds = estimates.batch_seconds(estimates.seconds(waiting[0].path) * len(waiting), idle)
    batch: list[PoolAttempt] = []
    seconds = child.load
    while waiting and len(batch) < child.room:
        attempt = waiting[0]
        attempt.estimate = estimates.seconds(attempt.path)
        seconds += attempt.estimate
        is_alone = is_quarantined(attempt)
        if batch and (seconds > max_seconds or is_alone):
            break
        batch.append(waiting.popleft())
        if is_alone:
            break
    return batch


def is_quarantined(attempt: PoolAttempt) -> bool:
    """Whether the task has lost its lease twice. It may have ended its workers, so it shares no batch with others."""
    return attempt.task.lost_count >= _QUARANTINE_LOSSES


def load(child: PoolChild) -> float:
    """Give the seconds until the child is done with its tasks; infinite if it takes no more."""
    return child.load if child.room else float("inf")
