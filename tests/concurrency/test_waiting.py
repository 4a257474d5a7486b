"""Producers notify only while a worker waits, and no task is left without a worker that knows of it."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from reproq_listen.db.listener import Listener
from reproq_listen.logs.json_lines import set_up
from tests.support.database import Database, expect_blocked, in_background, wait_until

QUEUE = "waiting"
ROUNDS = 120
PRODUCERS = 4
LATE = 1.0  # seconds; a lost task stays for ever, because this worker never polls
ENQUEUES: list[LiteralString] = [
    "select reproq_enqueue('app.tasks.run', p_queue_name => 'waiting')",
    "select reproq_enqueue('app.tasks.run', p_queue_name => 'waiting', p_dedupe => true)",
    """select from reproq_enqueue_many('[{"task_path": "app.tasks.run", "queue_name": "waiting"}]')""",
    """select from reproq_chain('[{"task_path": "app.tasks.run", "queue_name": "waiting"}]')""",
    """insert into task_runs (queue_name, spec_json, spec_hash)
       values ('waiting', '{"v": 1, "task_path": "app.tasks.run"}', gen_random_uuid()::text)""",
]
ENQUEUE = "select reproq_enqueue('app.tasks.run', p_queue_name => %s)"


class Worker:
    """Claims when its listener says that there may be tasks, and at no other time. It never polls."""

    def __init__(self, database: Database) -> None:
        self.claimed: set[int] = set()
        self.flag = asyncio.Event()
        self._claimed_more = asyncio.Event()
        self.listener = Listener(database.dsn, set_up(stream=io.StringIO()), queues=[QUEUE], on_ready=self.flag.set)
        self._dsn = database.dsn

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listening is verified, and it claims."""
        async with await AsyncConnection.connect(self._dsn, autocommit=True) as self._connection:
            services = [asyncio.create_task(service) for service in (self.listener.run(), self._work())]
            await self.listener.tried.wait()
            while not self.listener.verified:
                canary = self.listener.canary()
                if canary is not None:
                    await self._connection.execute("select pg_notify('reproq_control', %s)", [canary])
                await asyncio.sleep(0.001)
            yield
            for service in services:
                service.cancel()
            await asyncio.wait(services)

    async def claim(self) -> None:
        """One claim of all that there is."""
        query = "select result_id from reproq_claim('w', %s, 100, interval '1 hour')"
        cursor = await self._connection.execute(query, [[QUEUE]])
        self.claimed.update([row[0] for row in await cursor.fetchall()])
        self._claimed_more.set()

    async def has_claimed(self, result_ids: list[int]) -> bool:
        """Whether it claims all of these within LATE seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LATE):
                while not self.claimed.issuperset(result_ids):
                    await self._claimed_more.wait()
                    self._claimed_more.clear()
        return self.claimed.issuperset(result_ids)

    async def _work(self) -> None:
        while True:
            await self.flag.wait()
            self.flag.clear()
            await self.claim()


async def produce(producer: AsyncConnection) -> int:
    """One transaction that takes its time before it enqueues and before it commits."""
    await asyncio.sleep(random.uniform(0, 0.01))
    cursor = await producer.execute(ENQUEUE, [QUEUE])
    row = await cursor.fetchone()
    assert row is not None
    await asyncio.sleep(random.uniform(0, 0.02))
    await producer.commit()
    return int(row[0])


async def one_round(worker: Worker, producers: list[AsyncConnection]) -> bool:
    """The worker is busy, and begins to wait at some moment of the producers' transactions. False if a task is lost."""
    worker.listener.want_no_notifications()
    await asyncio.sleep(0.005)
    producing = asyncio.gather(*(produce(producer) for producer in producers))
    await asyncio.sleep(random.uniform(0, 0.03))
    await worker.claim()  # the last one of its own accord
    worker.listener.want_notifications()
    if await worker.has_claimed(await producing):
        return True
    await worker.claim()
    return False


def test_no_wakeup_is_lost_between_busy_and_waiting(arena: Database) -> None:
    """Whatever the order of look, commit, last claim and beginning to wait: each task is claimed without a poll."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            producers = [
                await stack.enter_async_context(await AsyncConnection.connect(arena.dsn)) for _ in range(PRODUCERS)
            ]
            worker = Worker(arena)
            await stack.enter_async_context(worker.running())
            lost = [number for number in range(ROUNDS) if not await one_round(worker, producers)]
            assert lost == [], "rounds in which a task was lost"

    asyncio.run(run())


def test_producers_notify_only_while_a_worker_of_the_queue_waits(arena: Database) -> None:
    """Not before, not after, not for other queues; the end of the session counts as after."""
    with arena.connect() as other, arena.connect() as producer:
        other.execute("listen reproq_ready")

        def notified(queue: str = QUEUE) -> bool:
            producer.execute(ENQUEUE, [queue])
            producer.execute("select pg_notify('reproq_ready', 'end')")
            payloads = []
            for notify in other.notifies(timeout=10):
                payloads.append(notify.payload)
                if payloads[-1] == "end":
                    break
            return payloads != ["end"]

        assert not notified()
        with arena.connect() as waiting, arena.connect() as also_waiting:
            waiting.execute("select reproq_notify_on(%s)", [[QUEUE, "more"]])
            also_waiting.execute("select reproq_notify_on(%s)", [[QUEUE]])
            assert notified()
            assert notified("more")
            assert not notified("none")
            waiting.execute("select reproq_notify_off(%s)", [[QUEUE, "more"]])
            assert notified()
            assert not notified("more")
        wait_until(lambda: not notified(), what="the sessions that waited have ended")
        producer.execute("set reproq.notify = always")
        assert notified()


def test_open_transactions_are_older_ones_that_have_written(arena: Database) -> None:
    """Of all sessions, until they end; a reader is none, and none that begins to write later."""
    with ExitStack() as stack:
        worker = stack.enter_context(arena.connect())
        writer, reader, later = (stack.enter_context(arena.connect(autocommit=False)) for _ in range(3))
        writer.execute(ENQUEUE, [QUEUE])
        reader.execute("select count(*) from task_runs")
        begun = worker.execute("select reproq_notify_on(%s)", [[QUEUE]]).fetchone()

        def is_open() -> bool:
            return worker.execute("select reproq_open_transactions(%s)", begun).fetchone() == (1,)

        assert is_open()
        later.execute(ENQUEUE, [QUEUE])
        assert is_open()
        writer.rollback()
        assert not is_open()
        later.rollback()


@pytest.mark.parametrize("enqueue", ENQUEUES)
def test_producers_look_after_they_have_written(arena: Database, enqueue: LiteralString) -> None:
    """A worker begins to wait while a producer has not written yet: the producer is not older, and notifies."""
    with ExitStack() as stack:
        holder, producer = (stack.enter_context(arena.connect(autocommit=False)) for _ in range(2))
        worker = stack.enter_context(arena.connect())
        worker.execute("listen reproq_ready")
        holder.execute("lock table task_runs in share mode")
        producing = in_background(producer, enqueue)
        expect_blocked(producer, holder)
        worker.execute("select reproq_notify_on(%s)", [[QUEUE]])
        holder.rollback()
        producing.result(timeout=10)
        producer.commit()
        assert [notify.payload for notify in worker.notifies(timeout=5, stop_after=1)] == [QUEUE]


@pytest.mark.parametrize(("held", "other"), [("a", "b"), ("b", "a")])
def test_transaction_of_a_waiting_worker_is_younger_than_what_looked_before(
    arena: Database, held: str, other: str
) -> None:
    """A producer looks while the worker has the locks of some queues and not of others: it notifies, or is older."""
    with ExitStack() as stack:
        holder, producer = (stack.enter_context(arena.connect(autocommit=False)) for _ in range(2))
        worker, observer = (stack.enter_context(arena.connect()) for _ in range(2))
        worker.execute("listen reproq_ready")
        holder.execute("select pg_advisory_lock(_reproq_wait_lock(%s))", [held])
        beginning = in_background(worker, "select reproq_notify_on('{a,b}')")
        expect_blocked(worker, holder)
        producer.execute(ENQUEUE, [other])
        holder.execute("select pg_advisory_unlock_all()")
        (begun,) = beginning.result(timeout=10)
        is_older = observer.execute("select reproq_open_transactions(%s)", begun).fetchone() == (1,)
        producer.commit()
        assert is_older or [notify.payload for notify in worker.notifies(timeout=5, stop_after=1)] == [other]


def test_a_look_at_waiting_workers_leaves_no_lock(arena: Database) -> None:
    """Not in the producer's session, and it holds up no worker that begins to wait while a producer is open."""
    with arena.connect(autocommit=False) as producer, arena.connect() as worker:
        producer.execute(ENQUEUE, [QUEUE])
        held = "select from pg_locks where locktype = 'advisory' and pid = %s"
        assert worker.execute(held, [producer.info.backend_pid]).fetchall() == []
        worker.execute("set lock_timeout = '1s'")
        worker.execute("select reproq_notify_on(%s)", [[QUEUE]])
        assert len(worker.execute(held, [worker.info.backend_pid]).fetchall()) == 1
        producer.rollback()


def test_producer_at_a_higher_isolation_level_sees_the_waiting_worker(arena: Database) -> None:
    """The look is no matter of its snapshot."""
    with arena.connect(autocommit=False) as producer, arena.connect() as worker:
        producer.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        producer.execute("select count(*) from task_runs")
        worker.execute("listen reproq_ready")
        worker.execute("select reproq_notify_on(%s)", [[QUEUE]])
        producer.execute(ENQUEUE, [QUEUE])
        producer.commit()
        assert [notify.payload for notify in worker.notifies(timeout=5, stop_after=1)] == [QUEUE]
