"""The claimer on a real database: whose turn it is, and from when the leases count."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from reproq_listen.db.errors import CallError
from reproq_listen.worker.claimer import Claimer
from tests.support.database import Database
from tests.support.services import Services, services
from tests.support.workers import enqueue

SLOW_CLAIMS = """
    create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.4); return new; end $$;
    create trigger slow before update on task_runs for each row
    when (old.status = 'READY' and new.status = 'RUNNING') execute function slow();
"""


def claimer(worker: Services, errors: list[CallError] | None = None) -> Claimer:
    on_error = ([] if errors is None else errors).append
    return Claimer(worker.queries, worker.settings, worker.registration, asyncio.Event(), on_error, worker.log)


def test_queues_take_turns_in_a_worker_with_one_free_place(database: Database) -> None:
    """Each claim takes one task, and each queue is first once in three claims: a full queue starves no other one.

    Claims with a hint, of which there may be many within a second, go on where the last ones stopped.
    """
    queues = ("a", "b", "c")
    for queue in queues:
        for _ in range(2):
            enqueue(database, "say", "x", queue_name=queue)

    async def scenario() -> Sequence[str]:
        async with services(database, queues=queues) as worker:
            claims = claimer(worker)
            taken: list[str] = []
            for pause in (0, 1.01, 1.01):
                await asyncio.sleep(pause)
                taken += [task.queue_name for task in (await claims.take(1)).tasks]
            return taken

    assert sorted(asyncio.run(scenario())) == list(queues)


def test_queues_take_turns_whatever_claims_with_a_hint_there_are(database: Database) -> None:
    """Each full look is followed by one claim with a hint, as in a worker whose tasks all take the same time: the two
    queues take turns all the same, and none waits for ever."""
    for queue in ("a", "b"):
        for _ in range(4):
            enqueue(database, "say", "x", queue_name=queue)

    async def scenario() -> list[str]:
        async with services(database, queues=("a", "b")) as worker:
            claims = claimer(worker)
            taken: list[str] = []
            for pause in (0, 1.01):
                await asyncio.sleep(pause)
                taken += [(await claims.take(1)).tasks[0].queue_name for _ in range(2)]
            return taken

    assert sorted(asyncio.run(scenario())) == ["a", "a", "b", "b"]


def test_lease_counts_from_before_its_claim_was_sent(database: Database) -> None:
    """The database counts from within the call. Counted from the reply, two attempts could run at once behind a slow
    one. Also where the claim has a hint, which a worker with more to claim sends."""
    for _ in range(2):
        enqueue(database, "say", "x")
    with database.connect() as owner:
        owner.execute(SLOW_CLAIMS)

    async def scenario() -> None:
        async with services(database) as worker:
            claims = claimer(worker)
            for _ in range(2):
                before = asyncio.get_running_loop().time()
                claimed = await claims.take(1)
                took = asyncio.get_running_loop().time() - before
                assert (len(claimed.tasks), took > 0.4) == (1, True)
                assert claimed.sent_at - before == pytest.approx(0, abs=0.2)

    asyncio.run(scenario())
