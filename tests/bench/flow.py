"""Tasks that flow: many claimers at once, pick-up by an idle worker, and what each step costs a row."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from tests.bench.measuring import Bench, Bound, Report, claim, interleaved, settle, timed_call, until_it_holds
from tests.support.backlogs import READY, add_backlog
from tests.support.database import Database

CLAIMERS = 8
TASKS = 50_000
SAMPLE = 4_000  # tasks that one connection claims alone, before the others and after them
ROWS = 100
IDS: LiteralString = "%(ids)s::bigint[], %(tokens)s::uuid[]"
STEPS: dict[str, LiteralString] = {
    "heartbeat": f"select * from reproq_heartbeat('bench', {IDS}, interval '10 minutes')",
    "complete": f"select * from reproq_complete({IDS}, array_fill('1'::jsonb, array[{ROWS}]))",
    "fail": f"""select * from reproq_fail({IDS}, array_fill('{{"kind": "app_error", "message": "no"}}'::jsonb,
        array[{ROWS}]), array_fill(null::boolean, array[{ROWS}]))""",
    "release": f"select * from reproq_release({IDS})",
}
ENQUEUE_ONE: LiteralString = "select reproq_enqueue('app.tasks.run', p_dedupe => false)"
ENQUEUE_MANY: LiteralString = f"""
    select count(*) from reproq_enqueue_many((
        select jsonb_agg(jsonb_build_object('task_path', 'app.tasks.run', 'args', jsonb_build_array(random())))
        from generate_series(1, {ROWS})))
"""


@dataclass(frozen=True)
class Drained:
    """What some claimers took, and at which rate."""

    result_ids: list[int]
    tasks_per_second: float


def claimers(bench: Bench) -> Report:
    """8 connections claim batches of 10 from 50 thousand tasks: each task once, none left, no slower than one alone.

    Bound with the hint that workers give. Without it each look steps over the rows just taken: a session that
    commits still sees them, so that their index entries must stay.
    """

    def measure() -> Report:
        with bench.database() as shared, bench.database() as quiet:
            _add_tasks(shared, TASKS)
            _add_tasks(quiet, 2 * SAMPLE)
            before = _drain(quiet, 1, at_most=SAMPLE)
            together = _drain(shared, CLAIMERS, at_most=2 * TASKS)
            after = _drain(quiet, 1, at_most=SAMPLE)
        with bench.database() as shared:
            _add_tasks(shared, SAMPLE)
            blind = _drain(shared, CLAIMERS, at_most=2 * SAMPLE, hinted=False)
        alone = (before.tasks_per_second + after.tasks_per_second) / 2
        numbers = {"tasks_per_second": {
            "1": round(alone),
            f"{CLAIMERS}": round(together.tasks_per_second),
            f"{CLAIMERS} without hint": round(blind.tasks_per_second),
        }}  # fmt: skip
        taken = len(together.result_ids)
        different = len(set(together.result_ids))
        return Report(numbers, [
            Bound("tasks claimed twice", taken - different, 0),
            Bound("tasks left", TASKS - different, 0),
            Bound("rate of one / rate of eight", round(alone / together.tasks_per_second, 2), 1.0),
        ])  # fmt: skip

    return until_it_holds(measure)


def pick_up(bench: Bench) -> Report:
    """From an insert that is committed to the answer of a listener's claim, its commit included."""
    with bench.database() as database, database.connect() as producer, database.connect() as worker:
        worker.execute("listen reproq_ready")
        claim(worker, 10)

        def measure() -> Report:
            since_commit, since_call = [], []
            with ThreadPoolExecutor(1) as pool:
                for _ in range(200):
                    claimed = pool.submit(_claim_when_called, worker)
                    called = time.perf_counter()
                    producer.execute("select reproq_enqueue('app.tasks.run', p_dedupe => false)")
                    committed = time.perf_counter()
                    answered = claimed.result(timeout=30)
                    since_commit.append((answered - committed) * 1e3)
                    since_call.append((answered - called) * 1e3)
            median = round(statistics.median(since_commit), 3)
            numbers = {"median_ms": median, "worst_ms": round(max(since_commit), 3),
                       "median_ms_with_the_insert": round(statistics.median(since_call), 3)}  # fmt: skip
            return Report(numbers, [Bound("median ms", median, 2.0)])

        return until_it_holds(measure)


def costs(bench: Bench) -> Report:
    """Microseconds a row of calls with 100 rows, of single calls, and of inserts with and without triggers."""
    with bench.database() as database, database.connect() as connection:
        _add_tasks(database, 20_000)
        taken: dict[str, list[float]] = {name: [] for name in ("claim", *STEPS)}
        for _ in range(12):
            _one_cycle(connection, taken)
        row_costs = {name: statistics.median(times) * 1e3 / ROWS for name, times in taken.items()}
        single = interleaved({
            "enqueue_one": partial(timed_call, connection, partial(_run, ENQUEUE_ONE, {})),
            "enqueue_many": partial(timed_call, connection, partial(_run, ENQUEUE_MANY, {})),
            "insert": partial(_insert, connection, triggers=True),
            "insert_without_triggers": partial(_insert, connection, triggers=False),
        }, 12)  # fmt: skip
        row_costs |= {name: ms * 1e3 / (1 if name == "enqueue_one" else ROWS) for name, ms in single.items()}
        return Report({"microseconds_a_row": {name: round(cost, 1) for name, cost in row_costs.items()}})


def _one_cycle(connection: psycopg.Connection, taken: dict[str, list[float]]) -> None:
    for end in ("complete", "fail", "release"):
        rows: list[tuple[object, ...]] = []
        taken["claim"].append(timed_call(connection, partial(_claim_into, rows)))
        attempts = {"ids": [row[0] for row in rows], "tokens": [row[1] for row in rows]}
        for step in ("heartbeat", end):
            taken[step].append(timed_call(connection, partial(_run, STEPS[step], attempts)))


def _claim_into(rows: list[tuple[object, ...]], session: psycopg.Connection) -> None:
    rows.extend(claim(session, ROWS))


def _run(statement: LiteralString, params: Mapping[str, object], session: psycopg.Connection) -> None:
    session.execute(statement, params)


def _insert(connection: psycopg.Connection, *, triggers: bool) -> float:
    started = time.perf_counter()
    add_backlog(connection, ROWS, READY, triggers=triggers)
    return (time.perf_counter() - started) * 1e3


def _add_tasks(database: Database, number: int) -> None:
    with database.connect() as owner:
        add_backlog(owner, number, {**READY, "priority": "n % 3"})
        settle(owner)


def _claim_when_called(worker: psycopg.Connection) -> float:
    """Wait for a notification, claim, and give the time of the answer."""
    for _ in worker.notifies(timeout=30, stop_after=1):
        pass
    assert claim(worker, 10), "a notification came and no task was ready"
    return time.perf_counter()


def _drain(database: Database, number: int, *, at_most: int, hinted: bool = True) -> Drained:
    """Let `number` connections claim, ten at a time, until nothing is left or about `at_most` are taken."""
    start = threading.Barrier(number + 1)
    taken: list[int] = []

    def work() -> None:
        with database.connect() as session:
            session.execute("select 1")
            start.wait()
            hint: Jsonb | None = None
            while len(taken) < at_most:
                rows = claim(session, 10, hint)
                taken.extend(row[0] for row in rows)
                hint = _hint(rows) if hinted and rows else None
                if not rows and not _claimable(session):
                    return

    with ThreadPoolExecutor(number) as pool:
        futures = [pool.submit(work) for _ in range(number)]
        start.wait()
        started = time.perf_counter()
        for future in futures:
            future.result()
        return Drained(taken, len(taken) / (time.perf_counter() - started))


def _hint(rows: list[Any]) -> Jsonb:
    """Where these rows' streams go on: what a worker hands to its next claim."""
    last = {priority: ready_since for _, _, priority, ready_since in rows}
    return Jsonb([
        {"queue_name": "default", "limit_key": "", "priority": priority, "since": since.isoformat()}
        for priority, since in last.items()
    ])  # fmt: skip


def _claimable(session: psycopg.Connection) -> bool:
    row = session.execute("select reproq_next_wake('{default}')").fetchone()
    assert row is not None
    wake: timedelta | None = row[0]
    return wake == timedelta(0)
