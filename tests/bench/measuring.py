"""What all benches share: databases to measure in, interleaved timing, bounds, and the report.

Times are of the call alone; the commit that follows belongs to the disk and is not timed unless a bench says so.
"""

from __future__ import annotations

import itertools
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg

from tests.support.database import Database, create_database, drop_database, install

CLAIM: LiteralString = """
    select result_id, lease_token, priority, ready_since
    from reproq_claim(p_worker_id => 'bench', p_queues => '{default}', p_limit => %s, p_lease => interval '10 minutes',
                      p_hint => %s)
"""
ATTEMPTS = (
    3  # a bound is missed when this number of measurements in a row miss it: other programs' load comes in bursts
)


@dataclass(frozen=True)
class Bound:
    """A number that a bench must keep to."""

    what: str
    value: float
    at_most: float

    @property
    def holds(self) -> bool:
        """Whether it does."""
        return self.value <= self.at_most


@dataclass
class Report:
    """What a bench found: numbers for people, and bounds that decide over the exit status."""

    numbers: dict[str, Any] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether all bounds hold."""
        return all(bound.holds for bound in self.bounds)


class Bench:
    """A server to measure on: hands out databases with the schema and drops them."""

    def __init__(self, server_dsn: str) -> None:
        self._server_dsn = server_dsn
        self._template = create_database(server_dsn, f"reproq_bench_{uuid.uuid4().hex[:12]}")
        install(self._template)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """A new database with the schema and no autovacuum, which would disturb the timing; dropped at the end."""
        name = f"reproq_bench_{uuid.uuid4().hex[:12]}"
        database = create_database(self._server_dsn, name, template=self._template.name)
        try:
            with database.connect() as owner:
                owner.execute("alter table task_runs set (autovacuum_enabled = off)")
            yield database
        finally:
            drop_database(self._server_dsn, database.name)

    def close(self) -> None:
        """Drop the template."""
        drop_database(self._server_dsn, self._template.name)


def settle(connection: psycopg.Connection) -> None:
    """Leave the table as autovacuum would after a while."""
    connection.execute("vacuum analyze")


def claim(connection: psycopg.Connection, number: int, hint: object = None) -> list[Any]:
    """Claim up to `number` tasks; rows of result_id, lease_token, priority, ready_since."""
    return connection.execute(CLAIM, [number, hint]).fetchall()


def timed_call(connection: psycopg.Connection, run: Callable[[psycopg.Connection], object]) -> float:
    """Milliseconds of `run` inside a transaction, which is committed afterwards."""
    with connection.transaction():
        connection.execute("select 1")  # the transaction has begun
        started = time.perf_counter()
        run(connection)
        return (time.perf_counter() - started) * 1e3


def interleaved(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each variant; a round measures each once, forwards and backwards in turn.

    So a burst of other load hits all alike. The first three rounds warm up.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 3):
        order = list(variants.items())
        for name, measure in order if turn % 2 else reversed(order):
            times[name].append(measure())
    return {name: round(statistics.median(taken[3:]), 3) for name, taken in times.items()}


def until_it_holds(measure: Callable[[], Report]) -> Report:
    """The first report whose bounds hold, or the last of ATTEMPTS."""
    for attempt in itertools.count(1):
        report = measure()
        report.numbers["measurements"] = attempt
        if report.holds or attempt == ATTEMPTS:
            return report
    raise AssertionError("not reached")
