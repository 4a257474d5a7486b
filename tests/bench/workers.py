"""What a whole worker process does: no-op tasks a second, row to row, and how soon an idle one has started a task.

Real processes on a real database. Clocks are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.measuring import Bench, Bound, Report, until_it_holds
from tests.support.backlogs import READY, RUNNING, add_backlog
from tests.support.database import ROOT, Database, wait_until

TASKS = "tests.apps.bench_tasks"
BACKLOG = 30_000
TARGET = 12_000  # tasks a second
ROUNDS = 100
PAUSE = 0.05  # seconds between two tasks for an idle worker
MODES = ("pool", "fork")
BEHIND = 100_000  # due tasks of one busy key
LONGEST = 300  # seconds for a backlog


def throughput(bench: Bench) -> Report:
    """No-op tasks a second through one worker with `--executor pool`, from its first claim to the last stored end."""

    def measure() -> Report:
        with bench.database() as database:
            _fill(database)
            used = _drain(database)
            query = """
                select count(*) / extract(epoch from max(finished_at) - min(started_at))::double precision,
                       count(*) filter (where status <> 'SUCCESSFUL' or attempts <> 1)
                from task_runs
            """
            with database.connect() as connection:
                rate, odd = connection.execute(query).fetchone() or (0.0, BACKLOG)
        assert odd == 0, f"{odd} tasks did not end well at their first attempt"
        price = {who: round(seconds / BACKLOG * 1e6, 1) for who, seconds in used.items()}
        numbers = {
            "tasks_per_second": round(rate),
            "cpu_microseconds_a_task": price,
            "tasks_per_second_of_two_whole_cores": round(2e6 / sum(price.values())),
        }
        return Report(numbers, [Bound(f"{TARGET} / tasks a second", TARGET / rate, 1.0)])

    return until_it_holds(measure)


def latency(bench: Bench) -> Report:
    """From before the insert until the task runs, one task every 50 ms, compared with the floor: until another process
    that does nothing else has claimed the row. In turns, in one run."""

    def measure() -> Report:
        with bench.database() as database, ExitStack() as stack:
            for mode in MODES:
                stack.enter_context(a_worker(database, "--executor", mode, "--queues", mode, "--worker-id", mode))
            floor = stack.enter_context(_floor(database))
            times = _in_turns(database, floor)
        medians = {name: statistics.median(found) for name, found in times.items()}
        numbers = {
            "median_ms": {name: round(median, 2) for name, median in medians.items()},
            "p99_ms": {name: round(_p99(found), 2) for name, found in times.items()},
            "of_floor": {mode: round(medians[mode] / medians["floor"], 2) for mode in MODES},
        }
        bounds = [
            Bound("pool / floor", medians["pool"] / medians["floor"], 1.5),
            Bound("fork / pool", medians["fork"] / medians["pool"], 1.3),
            Bound("p99 ms of pool", _p99(times["pool"]), 6.0),
        ]
        return Report(numbers, bounds)

    return until_it_holds(measure)


def busy_key(bench: Bench) -> Report:
    """How soon a worker starts a free task behind 100 thousand due tasks of one busy key that nothing blocked yet.

    They become due together, ahead of it, while the worker is idle. Then one more free task a second, while the worker
    still blocks the backlog.
    """

    def measure() -> Report:
        with ExitStack() as stack:
            database = stack.enter_context(bench.database())
            stack.enter_context(a_worker(database, "--executor", "pool", "--concurrency", "4"))
            producer, reader = (stack.enter_context(database.connect()) for _ in range(2))
            with producer.transaction():
                add_backlog(producer, 1, {**RUNNING, "lock_key": "'busy'"})
                add_backlog(producer, BEHIND, {**READY, "priority": "5 + n % 3", "lock_key": "'busy'"})
                result_id = _enqueue(producer, "default")
            began = time.monotonic()
            seconds = [_started(reader, result_id) - began]
            for _ in range(5):
                threading.Event().wait(1)
                began = time.monotonic()
                seconds.append(_started(reader, _enqueue(producer, "default")) - began)
        return Report(
            {"first_seconds": round(seconds[0], 2), "later_seconds": [round(one, 2) for one in seconds[1:]]},
            [Bound("seconds of the slowest", round(max(seconds), 2), 1.0)],
        )

    return until_it_holds(measure)


def pinned_snapshot(bench: Bench) -> Report:
    """What a worker does while an old transaction keeps the index entries of 100 thousand tasks that have ended.

    Its rate over the last 20 thousand compared with the first 20 thousand, and how soon it starts a task when it is
    idle, compared with before.
    """

    def measure() -> Report:
        with ExitStack() as stack:
            database = stack.enter_context(bench.database())
            stack.enter_context(a_worker(database, "--executor", "pool", "--concurrency", "4"))
            producer, reader, old = (stack.enter_context(database.connect()) for _ in range(3))
            before = _pick_ups(producer, reader)
            old.execute("begin isolation level repeatable read")
            old.execute("select count(*) from task_runs")
            _fill(database, number=BEHIND)
            query = "select not exists (select from task_runs where finished_at is null)"
            wait_until(lambda: bool(reader.execute(query).fetchone() == (True,)), what="all have run", seconds=LONGEST)
            after = _pick_ups(producer, reader)
            old.execute("rollback")
            found = reader.execute(
                """select extract(epoch from max(f.at) filter (where f.place <= 20000) - min(f.at)),
                          extract(epoch from max(f.at) - min(f.at) filter (where f.place > %s - 20000))
                   from (select finished_at as at, row_number() over (order by finished_at) as place
                         from task_runs where task_path = %s) f""",
                [BEHIND, f"{TASKS}.nothing"],
            ).fetchone()
            assert found is not None
            first, last = (20_000 / float(seconds) for seconds in found)
        return Report(
            {"rate": [round(first), round(last)], "pick_up_ms": [round(before, 2), round(after, 2)]},
            [
                Bound("rate, first / last", round(first / last, 2), 1.25),
                Bound("pick-up, after / before", round(after / before, 2), 3),
            ],
        )

    return until_it_holds(measure)


def _pick_ups(producer: psycopg.Connection, reader: psycopg.Connection) -> float:
    """Median milliseconds from before the insert until the task runs, one task every 50 ms."""
    found = []
    for _ in range(60):
        threading.Event().wait(PAUSE)
        began = time.monotonic()
        found.append((_started(reader, _enqueue(producer, "default")) - began) * 1e3)
    return statistics.median(found[10:])


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _fill(database: Database, number: int = BACKLOG) -> None:
    spec = {"v": 1, "task_path": f"{TASKS}.nothing", "args": [], "kwargs": {}, "queue_name": "default"}
    insert = """
        insert into task_runs (spec_json, spec_hash, task_path, enqueued_at)
        select %s::jsonb, md5(g.n::text) || md5(g.n::text), %s, now() - (1000000 - g.n) * interval '1 us'
        from generate_series(1, %s) as g (n)
    """
    with database.connect() as connection:
        connection.execute(insert, [json.dumps(spec), f"{TASKS}.nothing", number])
        connection.execute("vacuum analyze task_runs")
        connection.execute("checkpoint")


def _drain(database: Database) -> dict[str, float]:
    """Run a worker until all is done; give the CPU seconds of its processes and of its sessions in the server."""
    with a_worker(database, "--executor", "pool", "--concurrency", "4", "--drain") as process:
        used: dict[int, tuple[str, float]] = {}
        before: dict[int, float] = {}
        deadline = time.monotonic() + LONGEST
        pause = threading.Event()
        while process.poll() is None and time.monotonic() < deadline:
            for who, pid, seconds in _cpu_seconds(process.pid, database.name):
                before.setdefault(pid, seconds)
                used[pid] = (who, seconds - before[pid])
            pause.wait(0.05)
        assert process.poll() == 0, f"the worker has not drained: {process.poll()}"
    total = {"worker": 0.0, "children": 0.0, "database": 0.0}
    for who, seconds in used.values():
        total[who] += seconds
    return total


def _cpu_seconds(worker: int, database: str) -> Iterator[tuple[str, int, float]]:
    tick = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    sessions: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            title = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # ended meanwhile
        parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / tick
        if title.startswith(b"postgres: ") and database.encode() in title:
            sessions.add(pid)
    for pid, taken in seconds.items():
        if pid == worker:
            yield "worker", pid, taken
        elif worker in (parents[pid], parents.get(parents[pid])):
            yield "children", pid, taken
        elif pid in sessions:
            yield "database", pid, taken


@contextmanager
def a_worker(database: Database, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that has begun to work."""
    command = [sys.executable, "-m", "reproq_listen", "worker", "--dsn", database.dsn, "--preload", TASKS]
    command += ["--allowed-task-modules", TASKS, *flags]
    log = Path(f"/tmp/{database.name}-{'-'.join(flags[:2])}.log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        wait_until(lambda: b"listen_verified" in log.read_bytes(), what="the worker listens", seconds=60)
        yield process
    finally:
        process.terminate()
        process.wait(60)
        log.unlink()


@contextmanager
def _floor(database: Database) -> Iterator[subprocess.Popen[bytes]]:
    """A process that claims one row of the queue `floor` when it is called, and says when it had it."""
    command = [sys.executable, "-m", "tests.bench.floor", database.dsn]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"listening\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _in_turns(database: Database, floor: subprocess.Popen[bytes]) -> dict[str, list[float]]:
    """Milliseconds from before the insert until the claim is back (floor) or the task runs (modes)."""
    times: dict[str, list[float]] = {name: [] for name in ("floor", *MODES)}
    pause = threading.Event()
    assert floor.stdout is not None
    with database.connect() as producer, database.connect() as reader:
        for turn in range(ROUNDS + 5):
            for queue, found in times.items():
                pause.wait(PAUSE)
                began = time.monotonic()
                result_id = _enqueue(producer, queue)
                reached = float(floor.stdout.readline()) if queue == "floor" else _started(reader, result_id)
                if turn >= 5:  # the first ones warm up
                    found.append((reached - began) * 1e3)
    return times


def _enqueue(producer: psycopg.Connection, queue: str) -> int:
    query = "select reproq_enqueue(p_task_path => %s, p_queue_name => %s, p_dedupe => false)"
    row = producer.execute(query, [f"{TASKS}.started_at", queue]).fetchone()
    assert row is not None
    return int(row[0])


def _started(reader: psycopg.Connection, result_id: int) -> float:
    """What the task says, once that is stored."""
    found: list[Any] = []

    def is_stored() -> bool:
        query = "select return_json from task_runs where result_id = %s and status = 'SUCCESSFUL'"
        found[:] = reader.execute(query, [result_id]).fetchone() or ()
        return bool(found)

    wait_until(is_stored, what=f"task {result_id} has run", seconds=30)
    return float(found[0])
