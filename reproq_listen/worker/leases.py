"""The leases that this process holds, and the end of a child whose lease is not renewed.

A lease ends by the database's clock. This side only knows that it cannot end before
`monotonic(before the request was sent) + lease`, and stops the child a margin earlier, so that at the lease's end
no process of the attempt is alive. A failed heartbeat by itself stops nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from reproq_listen.db.worker_queries import Answer
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask, StopReason

_MIN_MARGIN = 1.0  # seconds
_TOO_LATE = 0.8  # part of the lease after which starting is no use
_GRACE_PER_LEASE = 0.25  # part of a lease that TERM may take before KILL, at most


class Stoppable(Protocol):
    """What a lease must know of a running child."""

    def stop(self, reason: StopReason) -> None: ...

    def kill(self) -> None: ...


@dataclass(slots=True, eq=False)
class Lease:
    """One claimed task while this process answers for it: starting, running, or its end not yet stored."""

    task: ClaimedTask
    ends: float  # monotonic seconds; the lease does not end before
    lost: bool = False  # the database said so: nothing about this attempt may be stored
    stopped: StopReason | None = None
    attempt: Stoppable | None = None
    has_ended: bool = False  # the child is dead, or there never was one: nothing is left to fence

    def stop(self, reason: StopReason) -> None:
        """Stop the child, now or as soon as there is one. The first reason stands."""
        if self.stopped is None:
            self.stopped = reason
        if self.attempt is not None:
            self.attempt.stop(self.stopped)

    def kill(self, reason: StopReason) -> None:
        """Stop the child without grace."""
        self.stop(reason)
        if self.attempt is not None:
            self.attempt.kill()

    def started(self, attempt: Stoppable) -> None:
        """The child exists; a stop that came before it is handed on."""
        self.attempt = attempt
        if self.stopped is not None:
            attempt.stop(self.stopped)

    def ended(self) -> None:
        """The child is dead: nothing is left to fence."""
        self.attempt = None
        self.has_ended = True


class Leases:
    """Owns what is held, and stops every child a margin before its lease can end.

    One timer serves all: it is set for the first lease that can end, and set anew when it finds that one renewed.
    """

    def __init__(self, lease: timedelta, grace: timedelta, log: Log) -> None:
        self.duration = lease
        self._seconds = lease.total_seconds()
        self._margin = margin(lease, grace)
        self._held: dict[int, Lease] = {}
        self._log = log
        self._expiry_timer: asyncio.TimerHandle | None = None

    def tasks(self) -> list[ClaimedTask]:
        return [lease.task for lease in self._held.values()]

    def holds(self, result_id: int) -> bool:
        return result_id in self._held

    def add(self, task: ClaimedTask, sent: float) -> Lease:
        """Take a task on. `sent`: monotonic time before the claim was sent."""
        former = self._held.get(task.result_id)
        if former is not None:
            self._lose(former)  # the database gave it out anew, so our own former lease is over
        lease = Lease(task, ends=sent + self._seconds)
        self._held[task.result_id] = lease
        self._arm(lease.ends)
        return lease

    def drop(self, task: ClaimedTask) -> None:
        """The attempt's end is stored, or belongs to nobody any more."""
        lease = self._held.get(task.result_id)
        if lease is not None and lease.task.lease_token == task.lease_token:
            lease.ended()
            del self._held[task.result_id]

    def too_late(self, lease: Lease) -> bool:
        """Whether so much of the lease has gone that the task should not start."""
        left = lease.ends - asyncio.get_running_loop().time()
        return left < (1.0 - _TOO_LATE) * self._seconds

    def apply(self, answers: Sequence[Answer], asked: Sequence[ClaimedTask], sent: float) -> None:
        """Act on a heartbeat's answers, row by row."""
        tokens = {task.result_id: task.lease_token for task in asked}
        for result_id, answer, _ in answers:
            lease = self._held.get(result_id)
            if lease is None or lease.task.lease_token != tokens.get(result_id):
                continue  # stored, or claimed anew, while the question was on its way
            if answer == "lost":
                self._lose(lease)
            elif answer in ("ok", "cancel"):
                self._renew(lease, sent)
                if answer == "cancel":
                    self._cancel(lease)

    def _renew(self, lease: Lease, sent: float) -> None:
        lease.ends = max(lease.ends, sent + self._seconds)

    def _cancel(self, lease: Lease) -> None:
        if lease.stopped is None and not lease.has_ended:
            self._log.info(Event.CANCEL_REQUESTED, task_id=lease.task.result_id)
            lease.stop(StopReason.CANCELLED)

    def _lose(self, lease: Lease) -> None:
        self._log.warning(Event.LEASE_LOST, task_id=lease.task.result_id)
        lease.lost = True
        lease.stop(StopReason.LOST)
        del self._held[lease.task.result_id]

    def _arm(self, ends: float) -> None:
        due = ends - self._margin
        if self._expiry_timer is not None:
            if self._expiry_timer.when() <= due:
                return
            self._expiry_timer.cancel()
        self._expiry_timer = asyncio.get_running_loop().call_at(due, self._stop_in_time)

    def _stop_in_time(self) -> None:
        self._expiry_timer = None
        now = asyncio.get_running_loop().time()
        fenced = [lease for lease in self._held.values() if not lease.has_ended]
        for lease in fenced:
            if lease.ends - self._margin <= now and lease.stopped is not StopReason.LOST:
                self._log.error(Event.LEASE_NOT_RENEWED, task_id=lease.task.result_id)
                lease.stop(StopReason.LOST)
        ahead = [lease.ends for lease in fenced if lease.ends - self._margin > now]
        if ahead:
            self._arm(min(ahead))


def effective_grace(lease: timedelta, grace: timedelta) -> timedelta:
    """The grace between TERM and KILL: as asked for, but never more than a quarter of the lease."""
    return min(grace, lease * _GRACE_PER_LEASE)


def margin(lease: timedelta, grace: timedelta) -> float:
    """Seconds before the end of a lease at which its child is told to stop: room for TERM, grace and KILL."""
    seconds = lease.total_seconds()
    wanted = max(_MIN_MARGIN, 0.1 * seconds, effective_grace(lease, grace).total_seconds() + 0.5)
    return min(wanted, 0.5 * seconds)
