"""pgqueuer on asyncpg and uvloop, batches of 100, tasks in the worker's own process. usage: ... DSN worker|producer

Ended jobs leave its table for its log. All its tables are logged (its durability `durable`, the default).
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries
from pgqueuer.models import Job
from psycopg.conninfo import conninfo_to_dict

from tests.apps import peer_tasks
from tests.bench.peers.producing import batches, serve

BATCH_SIZE = 100


async def connect(dsn: str) -> asyncpg.Connection:
    given = conninfo_to_dict(dsn)
    return await asyncpg.connect(
        host=given.get("host"),
        port=given.get("port"),
        user=given.get("user"),
        password=given.get("password"),
        database=given.get("dbname"),
    )


async def nothing(_: Job) -> None:
    peer_tasks.nothing()


async def send_time(job: Job) -> None:
    peer_tasks.send_time(*json.loads(job.payload or b"[]"))


async def work(dsn: str) -> None:
    program = PgQueuer.from_asyncpg_connection(await connect(dsn))
    program.entrypoint("nothing")(nothing)
    program.entrypoint("send_time")(send_time)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, program.shutdown.set)
    await program.run(batch_size=BATCH_SIZE)


class PgQueuerProducer:
    """See Producer."""

    def __init__(self, dsn: str) -> None:
        self._run = asyncio.Runner(loop_factory=uvloop.new_event_loop).run
        self._connection = self._run(connect(dsn))
        self._queries = Queries(AsyncpgDriver(self._connection))
        self._run(self._queries.install())

    def send_time(self, path: str, label: str) -> None:
        self._run(self._queries.enqueue("send_time", json.dumps([path, label]).encode()))

    def one(self, number: int) -> None:
        async def enqueue() -> None:
            for _ in range(number):
                await self._queries.enqueue("nothing", None)

        self._run(enqueue())

    def many(self, number: int) -> None:
        async def enqueue() -> None:
            for size in batches(number):
                await self._queries.enqueue(["nothing"] * size, [None] * size, [0] * size)

        self._run(enqueue())

    def left(self) -> int:
        return int(self._run(self._connection.fetchval("select count(*) from pgqueuer")))

    def clear(self) -> None:
        self._run(self._connection.execute("truncate pgqueuer, pgqueuer_log"))


if __name__ == "__main__":
    if sys.argv[2] == "worker":
        uvloop.run(work(sys.argv[1]))
    else:
        serve(PgQueuerProducer(sys.argv[1]), ("pgqueuer", "asyncpg", "uvloop"))
