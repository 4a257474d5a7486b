"""Which tasks travel to a child together."""

from collections import deque

from reproq_listen.executors.pool.attempt import PoolAttempt
from reproq_listen.executors.pool.child import PoolChild
from reproq_listen.executors.pool.estimates import DurationEstimates
from reproq_listen.executors.pool.isolation import UnbatchablePaths

_SUSPECT_LOSSES = 2


def next_batch(
    waiting: deque[PoolAttempt],
    child: PoolChild,
    estimates: DurationEstimates,
    unbatchable: UnbatchablePaths,
    idle: int,
) -> list[PoolAttempt]:
    """Take from the front of what waits as much as this child should get at once; at least one.

    `idle`: how many children have nothing to do, this one among them. There must be room for one.
    """
    most = estimates.batch_seconds(estimates.seconds(waiting[0].path) * len(waiting), idle)
    batch: list[PoolAttempt] = []
    seconds = child.load
    while waiting and len(batch) < child.room:
        attempt = waiting[0]
        attempt.estimate = estimates.seconds(attempt.path)
        seconds += attempt.estimate
        is_alone = travels_alone(attempt, unbatchable)
        if batch and (seconds > most or is_alone):
            break
        batch.append(waiting.popleft())
        if is_alone:
            break
    return batch


def travels_alone(attempt: PoolAttempt, unbatchable: UnbatchablePaths) -> bool:
    """From the second lost lease on a task shares no batch with others: it may be what ended its workers. Nor does one
    that may be heard."""
    return attempt.task.lost_count >= _SUSPECT_LOSSES or attempt.path in unbatchable


def load(child: PoolChild) -> float:
    """Seconds until the child is done with what it has; endless if it takes no more."""
    return child.load if child.room else float("inf")
