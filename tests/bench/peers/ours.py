"""reproq-listen's producer: the Python client on a connection of psycopg, in autocommit. usage: ... DSN

The worker is the program `reproq-listen worker` (variants.py). The bench has built the schema.
"""

from __future__ import annotations

import sys

import psycopg

from reproq_listen import Client, task
from tests.apps import peer_tasks
from tests.bench.peers.producing import batches, serve

NOTHING = task(peer_tasks.nothing)
SEND_TIME = task(peer_tasks.send_time)


class Ours:
    """See Producer."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._client = Client(self._connection)

    def send_time(self, path: str, label: str) -> None:
        self._client.enqueue(SEND_TIME, path, label)

    def one(self, number: int) -> None:
        for _ in range(number):
            self._client.enqueue(NOTHING)

    def many(self, number: int) -> None:
        for size in batches(number):
            self._client.enqueue_many([NOTHING.call()] * size)

    def left(self) -> int:
        row = self._connection.execute("select count(*) from task_runs where finished_at is null").fetchone()
        return int(row[0]) if row else 0

    def clear(self) -> None:
        self._connection.execute("truncate task_runs cascade")


if __name__ == "__main__":
    serve(Ours(sys.argv[1]), ("reproq-listen", "psycopg"))
