"""The arithmetic of leases: how early a child is stopped, and how long its grace may be."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from reproq_listen.db.worker_queries import Answer
from reproq_listen.logs.event_log import Log
from reproq_listen.model import ClaimedTask, StopReason
from reproq_listen.worker.leases import Leases, effective_grace, margin

LOG = Log(logging.getLogger("tests.lease"))


class Child:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[StopReason | str] = []

    def stop(self, reason: StopReason) -> None:
        self.told.append(reason)

    def kill(self) -> None:
        self.told.append("kill")


def claimed(result_id: int = 1, token: UUID | None = None) -> ClaimedTask:
    now = datetime.now(UTC)
    return ClaimedTask(
        result_id, token or uuid4(), "default", 0, "a.b", "{}", 1, 3, 900, now, timedelta(0), lost_count=0
    )


@pytest.mark.parametrize(
    ("lease", "grace", "expected"),
    [(300, 5, 30.0), (30, 5, 5.5), (10, 5, 3.0), (4, 0.5, 1.0), (2, 5, 1.0), (1, 0, 0.5)],
)
def test_a_child_is_stopped_early_enough_to_be_killed_in_time(lease: float, grace: float, expected: float) -> None:
    """The margin holds a tenth of the lease, a second, and the grace; of a short lease at most half."""
    seconds = margin(timedelta(seconds=lease), timedelta(seconds=grace))
    assert seconds == pytest.approx(expected)
    assert effective_grace(timedelta(seconds=lease), timedelta(seconds=grace)).total_seconds() < seconds


def test_an_answer_for_a_former_lease_does_not_touch_the_present_one() -> None:
    """A heartbeat that was on its way while the task was claimed anew says nothing about the new lease."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        former, present = claimed(), claimed()
        old, new = leases.add(former, now), leases.add(present, now)
        assert old.lost
        leases.apply([Answer(1, "lost")], asked=[former], sent=now)
        assert not new.lost
        leases.drop(former)
        assert leases.holds(1)
        leases.drop(present)
        assert not leases.holds(1)

    asyncio.run(scenario())


def test_a_cancel_that_comes_before_the_child_reaches_it() -> None:
    """Between claim and start there is nobody to tell yet; the first reason stands when there is."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        task = claimed()
        lease = leases.add(task, now)
        leases.apply([Answer(1, "cancel")], asked=[task], sent=now)
        lease.stop(StopReason.SHUTDOWN)
        child = Child()
        lease.started(child)
        assert child.told == [StopReason.CANCELLED]
        leases.drop(task)

    asyncio.run(scenario())


def test_a_lease_never_ends_earlier_than_it_did() -> None:
    """A late answer to an early beat does not shorten what a later beat has renewed."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        task = claimed()
        lease = leases.add(task, now)
        for sent in (now + 10, now + 5):
            leases.apply([Answer(1, "ok")], asked=[task], sent=sent)
        assert lease.ends == now + 40
        assert not leases.too_late(lease)
        leases.drop(task)

    asyncio.run(scenario())
