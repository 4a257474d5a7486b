"""The heartbeat on a real database: from when a renewal counts, and how soon the next beat comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from reproq_listen.worker.heartbeat import Heartbeat
from reproq_listen.worker.leases import Lease, Leases
from tests.support.database import Database
from tests.support.executing import until
from tests.support.services import running, services
from tests.support.workers import enqueue, row

SLOW_RENEWALS = """
    create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.4); return new; end $$;
    create trigger slow before update on task_runs for each row
    when (new.leased_until > old.leased_until) execute function slow();
"""


@asynccontextmanager
async def holding(database: Database, **changes: Any) -> AsyncIterator[tuple[Heartbeat, Lease]]:
    """A heartbeat, not running yet, and the lease of one claimed task. `changes` are settings."""
    enqueue(database, "say", "x")
    async with services(database, **changes) as worker:
        leases = Leases(worker.settings.lease, timedelta(0), worker.log)
        heartbeat = Heartbeat(worker.queries, worker.settings, worker.registration, leases, worker.log)
        sent_at = asyncio.get_running_loop().time()
        (task,) = await worker.claim()
        yield heartbeat, leases.add(task, sent_at)
        leases.drop(task)


def test_renewal_counts_from_before_its_beat_was_sent(database: Database) -> None:
    """Counted from the reply, an attempt could outlive its lease behind a slow one."""
    with database.connect() as owner:
        owner.execute(SLOW_RENEWALS)

    async def scenario() -> None:
        async with holding(database) as (heartbeat, lease):
            first = lease.expires_at
            before = asyncio.get_running_loop().time()
            async with running(heartbeat.run()):
                await until(lambda: lease.expires_at > first, "the lease is renewed")
            assert asyncio.get_running_loop().time() - before > 0.4
            assert lease.expires_at == pytest.approx(before + 60, abs=0.2)

    asyncio.run(scenario())


def test_busy_row_is_asked_for_again_soon(database: Database) -> None:
    """Another session held the row at the beat: it is renewed within a second, and not at the next interval."""

    async def scenario() -> None:
        async with holding(database) as (heartbeat, lease):
            first, result_id = lease.expires_at, lease.task.result_id
            with psycopg.connect(database.dsn) as holder:
                holder.execute("select from task_runs where result_id = %s for update", [result_id])
                async with running(heartbeat.run()):
                    await asyncio.sleep(0.3)
                    assert lease.expires_at == first
                    holder.rollback()
                    await until(lambda: lease.expires_at > first, "the lease is renewed", seconds=5)

    asyncio.run(scenario())


def test_lease_is_renewed_three_times_however_long_the_interval(database: Database) -> None:
    """An interval that is longer than a third of the lease would lose it to one failed beat."""

    async def scenario() -> None:
        short = timedelta(seconds=1.8)
        async with holding(database, lease=short, heartbeat=timedelta(seconds=30)) as (heartbeat, lease):
            renewed = {lease.expires_at}
            end = lease.expires_at
            async with running(heartbeat.run()):
                while asyncio.get_running_loop().time() < end:
                    renewed.add(lease.expires_at)
                    await asyncio.sleep(0.02)
            assert len(renewed) > 3
            assert row(database, lease.task.result_id)["status"] == "RUNNING"

    asyncio.run(scenario())


def test_lost_lease_stops_its_child(database: Database) -> None:
    """The task was released behind our back, as by a reclaim: the beat learns it, and nothing runs on."""

    async def scenario() -> None:
        async with holding(database) as (heartbeat, lease):
            with database.connect() as other:
                other.execute("update task_runs set status = 'READY'")
            async with running(heartbeat.run()):
                await until(lambda: lease.is_lost, "the lease is lost")
            assert lease.stop_reason is not None

    asyncio.run(scenario())
