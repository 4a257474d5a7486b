"""What the Python client adds to a call of `reproq_enqueue`, and the decorator to the start of a program."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import LiteralString

import psycopg

from reproq_listen import Client
from tests.apps import client_tasks as app
from tests.bench.measuring import Bench, Bound, Report, interleaved, until_it_holds

CALLS = 300
BARE: LiteralString = "select reproq_enqueue(%s, %s, %s, p_queue_name => %s)"
IMPORTS = {"nothing": "pass", "decorator": "from reproq_listen import task"}


def client(bench: Bench) -> Report:
    """Client.enqueue next to the same statement written by hand, both in one transaction of psycopg.

    In CPU of this process and of the backend: between them both wait for the scheduler, as long as others use it.
    """

    def measure() -> Report:
        with bench.database() as database, database.connect() as connection:
            producer = Client(connection)

            def bare(number: int) -> None:
                values = [app.add.module_path, f"[{number}, 2]", '{"loud": true}', "mail"]
                connection.execute(BARE, values)

            def through_client(number: int) -> None:
                producer.enqueue(app.add, number, 2, loud=True)

            def cost(call: Callable[[int], object]) -> float:
                before = _cpu(connection)
                for number in range(CALLS):
                    call(number)
                taken = (_cpu(connection) - before) / 1e3 / CALLS
                connection.rollback()
                return taken

            microseconds = interleaved(
                {"select reproq_enqueue": partial(cost, bare), "Client.enqueue": partial(cost, through_client)}, 8
            )
        ratio = round(microseconds["Client.enqueue"] / microseconds["select reproq_enqueue"], 2)
        numbers = {"microseconds": microseconds, "rate of the client / rate of the statement": round(1 / ratio, 2)}
        return Report(numbers, [Bound("time of Client.enqueue / time of the statement", ratio, 1.43)])

    return until_it_holds(measure)


def _cpu(connection: psycopg.Connection) -> int:
    """Nanoseconds of CPU of this process and of a backend on this host."""
    text = Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text()
    return time.process_time_ns() + int(text.split()[0])


def decorator(bench: Bench) -> Report:
    """Milliseconds of CPU that importing the decorator adds to the start of Python."""

    def cost(program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(3):
            subprocess.run([sys.executable, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3 / 3

    def measure() -> Report:
        taken = interleaved({name: partial(cost, program) for name, program in IMPORTS.items()}, 8)
        added = round(taken["decorator"] - taken["nothing"], 1)
        return Report({"milliseconds": taken}, [Bound("milliseconds of the decorator's import", added, 30)])

    return until_it_holds(measure)
