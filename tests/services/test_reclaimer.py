"""The reclaimer on a real database: after a mass crash it goes on until nothing is left."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from reproq_listen.worker.reclaimer import Reclaimer
from tests.support.backlogs import RUNNING, add_backlog
from tests.support.database import Database
from tests.support.executing import until
from tests.support.services import running, services


def count_ready(database: Database) -> int:
    with database.connect() as look:
        found = look.execute("select count(*) from task_runs where status = 'READY'").fetchone()
    assert found is not None
    return int(found[0])


def test_all_expired_leases_are_reclaimed_at_once(database: Database) -> None:
    """250 tasks of dead workers come back in one interval, and the worker looks for work then."""
    with database.connect() as owner:
        add_backlog(owner, 250, {**RUNNING, "leased_until": "now() - interval '1 minute'"})
    woken: list[bool] = []

    async def scenario() -> None:
        async with services(database) as worker:
            interval = timedelta(hours=1)
            reclaimer = Reclaimer(worker.queries, interval, lambda: woken.append(True), worker.log)
            async with running(reclaimer.run()):
                await until(lambda: bool(woken), "tasks became claimable", seconds=10)

    asyncio.run(scenario())
    assert count_ready(database) == 250
