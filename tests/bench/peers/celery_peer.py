"""celery on Redis, prefork with reused processes. usage: ... (the producer); the worker is the program `celery -A`.

BENCH_REDIS is the path of the socket of a Redis that the bench started. Tasks are acknowledged after they ran, as ours
are, not before (its default), and results are not stored.
"""

from __future__ import annotations

import os

import redis
from celery import Celery

from tests.apps import peer_tasks
from tests.bench.peers.producing import serve

SOCKET = os.environ["BENCH_REDIS"]
app = Celery("bench", broker=f"redis+socket://{SOCKET}")
app.conf.update(task_ignore_result=True, task_acks_late=True)
nothing = app.task(name="nothing")(peer_tasks.nothing)
send_time = app.task(name="send_time")(peer_tasks.send_time)


class CeleryProducer:
    """See Producer. Celery has no call for many."""

    def __init__(self) -> None:
        self._redis = redis.Redis(unix_socket_path=SOCKET)
        self._messages = app.amqp.producer_pool.acquire(block=True)

    def send_time(self, path: str, label: str) -> None:
        send_time.apply_async((path, label), producer=self._messages)

    def one(self, number: int) -> None:
        for _ in range(number):
            nothing.apply_async(producer=self._messages)

    def many(self, number: int) -> None:
        fsync = self._redis.config_get("appendfsync")["appendfsync"]
        self._redis.config_set("appendfsync", "no")  # this only fills a queue; it is not measured
        self.one(number)
        self._redis.config_set("appendfsync", fsync)

    def left(self) -> int:
        return int(self._redis.llen("celery")) + int(self._redis.hlen("unacked"))

    def clear(self) -> None:
        self._redis.flushall()


if __name__ == "__main__":
    serve(CeleryProducer(), ("celery", "kombu", "billiard", "redis"))
