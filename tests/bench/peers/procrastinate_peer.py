"""procrastinate on psycopg, async tasks in the worker's own process. usage: ... DSN worker|producer [CONCURRENCY]

Ended jobs stay in its table (its default `delete_jobs='never'`), as ours do.
"""

from __future__ import annotations

import sys

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from tests.apps import peer_tasks
from tests.bench.peers.producing import batches, serve


async def nothing() -> None:
    peer_tasks.nothing()


async def send_time(path: str, label: str) -> None:
    peer_tasks.send_time(path, label)


class ProcrastinateProducer:
    """See Producer."""

    def __init__(self, dsn: str) -> None:
        app = App(connector=SyncPsycopgConnector(conninfo=dsn))
        app.open()
        app.schema_manager.apply_schema()
        self._nothing, self._tell = app.task(name="nothing")(nothing), app.task(name="send_time")(send_time)
        self._connection = psycopg.connect(dsn, autocommit=True)

    def send_time(self, path: str, label: str) -> None:
        self._tell.defer(path=path, label=label)

    def one(self, number: int) -> None:
        for _ in range(number):
            self._nothing.defer()

    def many(self, number: int) -> None:
        for size in batches(number):
            self._nothing.batch_defer(*[{}] * size)

    def left(self) -> int:
        query = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def clear(self) -> None:
        self._connection.execute("truncate procrastinate_jobs cascade")


def work(dsn: str, concurrency: int) -> None:
    app = App(connector=PsycopgConnector(conninfo=dsn))
    app.task(name="nothing")(nothing)
    app.task(name="send_time")(send_time)
    app.run_worker(concurrency=concurrency)


if __name__ == "__main__":
    if sys.argv[2] == "worker":
        work(sys.argv[1], int(sys.argv[3]))
    else:
        serve(ProcrastinateProducer(sys.argv[1]), ("procrastinate", "psycopg"))
