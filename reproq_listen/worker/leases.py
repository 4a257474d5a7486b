"""The leases that this process holds, and the stop of a child whose lease is not renewed.

A lease ends by the database's clock. This side only knows that it does not end before
`monotonic(before the request was sent) + lease`, and stops the child a margin earlier, so that at the end of the lease
no process of the attempt is alive. A failed heartbeat by itself stops no child.
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
_MAX_AGE_TO_START = 0.8  # part of the lease; an older one is too old to start its task
_MAX_GRACE = 0.25  # part of the lease that may pass between TERM and KILL


class Stoppable(Protocol):
    """The part of an attempt that its lease needs."""

    def stop(self, reason: StopReason) -> None: ...

    def kill(self) -> None: ...


@dataclass(slots=True, eq=False)
class Lease:
    """A claimed task from its claim until its end is stored."""

    task: ClaimedTask
    expires_at: float  # monotonic seconds; the lease does not end before
    is_lost: bool = False  # the database says so: no result of this attempt may be stored
    stop_reason: StopReason | None = None
    attempt: Stoppable | None = None
    has_ended: bool = False  # the child is dead or was never started: expiry has nothing to stop

    def stop(self, reason: StopReason) -> None:
        """Stop the child, now or as soon as it is started. The first reason stands."""
        if self.stop_reason is None:
            self.stop_reason = reason
        if self.attempt is not None:
            self.attempt.stop(self.stop_reason)

    def kill(self, reason: StopReason) -> None:
        """Stop the child without grace."""
        self.stop(reason)
        if self.attempt is not None:
            self.attempt.kill()

    def started(self, attempt: Stoppable) -> None:
        """The child exists. It is stopped if `stop` was called before."""
        self.attempt = attempt
        if self.stop_reason is not None:
            attempt.stop(self.stop_reason)

    def ended(self) -> None:
        """The child is dead."""
        self.attempt = None
        self.has_ended = True


class Leases:
    """Owns the leases, and stops each child a margin before its lease can end.

    One timer serves all leases. It is set for the first one that can end, and set again if that one was renewed.
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

    def add(self, task: ClaimedTask, sent_at: float) -> Lease:
        """Hold the lease of a claimed task. `sent_at`: monotonic time before the claim was sent."""
        former = self._held.get(task.result_id)
        if former is not None:
            self._lose(former)  # the task was claimed again, so our former lease is over
        lease = Lease(task, expires_at=sent_at + self._seconds)
        self._held[task.result_id] = lease
        self._set_timer(lease.expires_at)
        return lease

    def drop(self, task: ClaimedTask) -> None:
        """The end of the attempt is stored, or can no longer be stored."""
        lease = self._held.get(task.result_id)
        if lease is not None and lease.task.lease_token == task.lease_token:
            lease.ended()
            del self._held[task.result_id]

    def too_late(self, lease: Lease) -> bool:
        """Whether too little of the lease is left to start the task."""
        left = lease.expires_at - asyncio.get_running_loop().time()
        return left < (1.0 - _MAX_AGE_TO_START) * self._seconds

    def apply(self, answers: Sequence[Answer], asked: Sequence[ClaimedTask], sent_at: float) -> None:
        """Act on the answers of a heartbeat, row by row."""
        tokens = {task.result_id: task.lease_token for task in asked}
        for result_id, answer, _ in answers:
            lease = self._held.get(result_id)
            if lease is None or lease.task.lease_token != tokens.get(result_id):
                continue  # stored, or claimed again, during the call
            if answer == "lost":
                self._lose(lease)
            elif answer in ("ok", "cancel", "already"):  # already: the task has completed in its own transaction
                self._renew(lease, sent_at)
                if answer == "cancel":
                    self._cancel(lease)

    def _renew(self, lease: Lease, sent_at: float) -> None:
        lease.expires_at = max(lease.expires_at, sent_at + self._seconds)

    def _cancel(self, lease: Lease) -> None:
        if lease.stop_reason is None and not lease.has_ended:
            self._log.info(Event.CANCEL_REQUESTED, task_id=lease.task.result_id)
            lease.stop(StopReason.CANCELLED)

    def _lose(self, lease: Lease) -> None:
        self._log.warning(Event.LEASE_LOST, task_id=lease.task.result_id)
        lease.is_lost = True
        lease.stop(StopReason.LOST)
        del self._held[lease.task.result_id]

    def _set_timer(self, expires_at: float) -> None:
        due = expires_at - self._margin
        if self._expiry_timer is not None:
            if self._expiry_timer.when() <= due:
                return
            self._expiry_timer.cancel()
        self._expiry_timer = asyncio.get_running_loop().call_at(due, self._stop_expiring)

    def _stop_expiring(self) -> None:
        self._expiry_timer = None
        now = asyncio.get_running_loop().time()
        alive = [lease for lease in self._held.values() if not lease.has_ended]
        for lease in alive:
            if lease.expires_at - self._margin <= now and lease.stop_reason is not StopReason.LOST:
                self._log.error(Event.LEASE_NOT_RENEWED, task_id=lease.task.result_id)
                lease.stop(StopReason.LOST)
        later = [lease.expires_at for lease in alive if lease.expires_at - self._margin > now]
        if later:
            self._set_timer(min(later))


def effective_grace(lease: timedelta, grace: timedelta) -> timedelta:
    """The grace between TERM and KILL: the configured one, but at most a quarter of the lease."""
    return min(grace, lease * _MAX_GRACE)


def margin(lease: timedelta, grace: timedelta) -> float:
    """Seconds before the end of a lease at which its child is stopped: time for TERM, grace and KILL."""
    seconds = lease.total_seconds()
    wanted = max(_MIN_MARGIN, 0.1 * seconds, effective_grace(lease, grace).total_seconds() + 0.5)
    return min(wanted, 0.5 * seconds)
