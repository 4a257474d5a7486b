"""What NOTIFY costs many producers that commit side by side: with it, without it, and when the database decides."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import LiteralString

import psycopg

from tests.bench.measuring import Bench, Bound, Report, interleaved, until_it_holds
from tests.bench.workers import TASKS, a_worker
from tests.support.database import Database

CLIENTS = 16
COMMITS = 40  # of each client and measurement
ROUNDS = 7
ENQUEUE: LiteralString = f"select reproq_enqueue('{TASKS}.nothing', p_queue_name => %s)"


def notify(bench: Bench) -> Report:
    """16 clients commit enqueues, durably. `auto`: no worker waits. `off`: no NOTIFY. `waiting`: one always waits."""

    def measure() -> Report:
        with bench.database() as database, ExitStack() as stack:
            clients = [stack.enter_context(database.connect()) for _ in range(CLIENTS)]
            waiting = stack.enter_context(database.connect())
            waiting.execute("select reproq_notify_on('{waiting}')")
            rates = _rates(clients, {
                "auto": ("auto", "default"), "off": ("off", "default"),
                "always": ("always", "default"), "waiting": ("auto", "waiting"),
            })  # fmt: skip
            with_worker = _with_a_worker(database, clients)
        numbers = {"commits_per_second": rates, "commits_per_second_beside_a_pool_worker": with_worker}
        return Report(numbers, [Bound("rate off / rate auto", round(rates["off"] / rates["auto"], 2), 1.11)])

    return until_it_holds(measure)


def _with_a_worker(database: Database, clients: list[psycopg.Connection]) -> dict[str, int]:
    """The same while a worker runs all tasks, which takes a part of the processors."""
    with a_worker(database, "--executor", "pool", "--concurrency", "4"):
        return _rates(clients, {"auto": ("auto", "default"), "always": ("always", "default")})


def _rates(clients: list[psycopg.Connection], variants: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """Commits a second. A variant: the value of reproq.notify, and the queue."""

    def variant(mode: str, queue: str) -> Callable[[], float]:
        return lambda: _seconds(clients, mode, queue)

    taken = interleaved({name: variant(*values) for name, values in variants.items()}, ROUNDS)
    return {name: round(CLIENTS * COMMITS / seconds) for name, seconds in taken.items()}


def _seconds(clients: list[psycopg.Connection], mode: str, queue: str) -> float:
    """Seconds for COMMITS of each client, from the first to the last."""
    start = threading.Barrier(CLIENTS + 1)

    def commit(client: psycopg.Connection) -> None:
        client.execute("select set_config('reproq.notify', %s, false)", [mode])
        start.wait()
        for _ in itertools.repeat(None, COMMITS):
            client.execute(ENQUEUE, [queue], prepare=True)

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(commit, client) for client in clients]
        start.wait()
        began = time.perf_counter()
        for each in running:
            each.result()
        return time.perf_counter() - began
