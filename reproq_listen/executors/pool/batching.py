"""Which tasks travel to a child together."""

from collections import deque

from reproq_listen.executors.pool.attempt import PoolAttempt
from reproq_listen.executors.pool.child import Member
from reproq_listen.executors.pool.estimates import Pace
from reproq_listen.executors.pool.isolation import Loners

_SUSPECT_LOSSES = 2


def next_frame(waiting: deque[PoolAttempt], member: Member, pace: Pace, loners: Loners, idle: int) -> list[PoolAttempt]:
    """Take from the front of what waits as much as this child should get at once; at least one.

    `idle`: how many children have nothing to do, this one among them. There must be room for one.
    """
    most = pace.frame_seconds(pace.seconds(waiting[0].path) * len(waiting), idle)
    frame: list[PoolAttempt] = []
    seconds = member.load
    while waiting and len(frame) < member.room:
        attempt = waiting[0]
        attempt.estimate = pace.seconds(attempt.path)
        seconds += attempt.estimate
        is_alone = travels_alone(attempt, loners)
        if frame and (seconds > most or is_alone):
            break
        frame.append(waiting.popleft())
        if is_alone:
            break
    return frame


def travels_alone(attempt: PoolAttempt, loners: Loners) -> bool:
    """From the second lost lease on a task shares no frame with others: it may be what ended its workers. Nor does one
    that may be heard."""
    return attempt.task.lost_count >= _SUSPECT_LOSSES or attempt.path in loners


def load(member: Member) -> float:
    """Seconds until the child is done with what it has; endless if it takes no more."""
    return member.load if member.room else float("inf")
