"""Leases: how early a child is stopped, how long its grace may be, and what heartbeats change."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from reproq_listen.db.worker_queries import Answer
from reproq_listen.logs.event_log import Log
from reproq_listen.model import ClaimedTask, StopReason
from reproq_listen.worker.leases import Leases, effective_grace, margin

LOG = Log(logging.getLogger("tests.leases"))


class Child:
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[StopReason | str] = []

    def stop(self, reason: StopReason) -> None:
        self.calls.append(reason)

    def kill(self) -> None:
        self.calls.append("kill")


def claimed(result_id: int = 1, token: UUID | None = None) -> ClaimedTask:
    now = datetime.now(UTC)
    return ClaimedTask(
        result_id, token or uuid4(), "default", 0, "a.b", "{}", 1, 3, 900, now, timedelta(0), lost_count=0
    )


@pytest.mark.parametrize(
    ("lease", "grace", "expected"),
    [(300, 5, 30.0), (30, 5, 5.5), (10, 5, 3.0), (4, 0.5, 1.0), (2, 5, 1.0), (1, 0, 0.5)],
)
def test_margin_leaves_time_to_kill_a_child(lease: float, grace: float, expected: float) -> None:
    """The margin is a tenth of the lease, a second, or the grace and some more; of a short lease at most half."""
    seconds = margin(timedelta(seconds=lease), timedelta(seconds=grace))
    assert seconds == pytest.approx(expected)
    assert effective_grace(timedelta(seconds=lease), timedelta(seconds=grace)).total_seconds() < seconds


def test_leases_ignore_answers_for_a_former_lease() -> None:
    """An answer to a heartbeat that was sent before the task was claimed again says nothing about the new lease."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        former, present = claimed(), claimed()
        old, new = leases.add(former, now), leases.add(present, now)
        assert old.is_lost
        leases.apply([Answer(1, "lost")], asked=[former], sent_at=now)
        assert not new.is_lost
        leases.drop(former)
        assert leases.holds(1)
        leases.drop(present)
        assert not leases.holds(1)

    asyncio.run(scenario())


def test_lease_cancelled_before_its_child_exists_stops_it_later() -> None:
    """Between claim and start there is no child to stop yet; the first reason stops it when it starts."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        task = claimed()
        lease = leases.add(task, now)
        leases.apply([Answer(1, "cancel")], asked=[task], sent_at=now)
        lease.stop(StopReason.SHUTDOWN)
        child = Child()
        lease.started(child)
        assert child.calls == [StopReason.CANCELLED]
        leases.drop(task)

    asyncio.run(scenario())


def test_lease_expiry_never_moves_backwards() -> None:
    """A late answer to an early beat does not shorten what a later beat has renewed."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        task = claimed()
        lease = leases.add(task, now)
        for sent_at in (now + 10, now + 5):
            leases.apply([Answer(1, "ok")], asked=[task], sent_at=sent_at)
        assert lease.expires_at == now + 40
        assert not leases.too_late(lease)
        leases.drop(task)

    asyncio.run(scenario())


def test_lease_that_is_lost_stops_its_child() -> None:
    """The database has given the task to another attempt."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        task, child = claimed(), Child()
        leases.add(task, now).started(child)
        leases.apply([Answer(1, "lost")], asked=[task], sent_at=now)
        assert child.calls == [StopReason.LOST]

    asyncio.run(scenario())


def test_lease_that_was_renewed_is_still_watched() -> None:
    """The one timer is set again: for a renewed lease, and for one that was claimed later."""

    async def scenario() -> None:
        now = asyncio.get_running_loop().time()
        leases = Leases(timedelta(seconds=1), timedelta(0), LOG)  # the margin is half a second
        renewed, later = claimed(1), claimed(2)
        children = {task.result_id: Child() for task in (renewed, later)}
        leases.add(renewed, now - 0.4).started(children[1])
        leases.add(later, now - 0.2).started(children[2])
        leases.apply([Answer(1, "ok")], asked=[renewed], sent_at=now)
        await asyncio.sleep(0.2)
        assert [child.calls for child in children.values()] == [[], []]
        await asyncio.sleep(0.2)
        assert [child.calls for child in children.values()] == [[], [StopReason.LOST]]
        await asyncio.sleep(0.3)
        assert [child.calls for child in children.values()] == [[StopReason.LOST], [StopReason.LOST]]

    asyncio.run(scenario())


def test_lease_that_is_not_renewed_stops_its_child_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of day may be set back by an hour, between two leases and after: both children are stopped in time.

    The timer has looked at the first lease before the second one is there, so it must be set again.
    """

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        leases = Leases(timedelta(seconds=2), timedelta(seconds=0.2), LOG)
        first, second = Child(), Child()
        leases.add(claimed(1), loop.time() - 0.9).started(first)
        true_time = time.time
        monkeypatch.setattr(time, "time", lambda: true_time() - 3600)
        await asyncio.sleep(0.2)
        leases.add(claimed(2), loop.time() - 0.8).started(second)
        await asyncio.sleep(0.4)
        assert (first.calls, second.calls) == ([StopReason.LOST], [StopReason.LOST])

    asyncio.run(scenario())


def test_lost_lease_stops_its_child() -> None:
    """The database says so: nothing of the attempt may run on or be stored."""

    async def scenario() -> None:
        leases = Leases(timedelta(seconds=30), timedelta(seconds=5), LOG)
        task, child = claimed(), Child()
        lease = leases.add(task, asyncio.get_running_loop().time())
        lease.started(child)
        leases.apply([Answer(1, "lost")], asked=[task], sent_at=0.0)
        assert (child.calls, lease.is_lost, leases.holds(1)) == ([StopReason.LOST], True, False)

    asyncio.run(scenario())
