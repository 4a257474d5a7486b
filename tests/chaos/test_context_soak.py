"""Effects of tasks that end in their own transaction happen once, and stored steps never again, whatever dies.

    .venv/bin/pytest tests/chaos/test_context_soak.py                                 150 tasks
    REPROQ_CONTEXT_SOAK=5500 .venv/bin/pytest -s tests/chaos/test_context_soak.py     before a release

Workers are killed by their tasks at every point of them, and by the test. Some are frozen for longer than their lease,
and PostgreSQL crashes. `-s` shows the numbers of the run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from reproq_listen.embedded.server import EmbeddedServer
from tests.apps.soak_context_tasks import POINTS
from tests.support.database import Database
from tests.support.workers import WorkerProcess

TASKS = int(os.environ.get("REPROQ_CONTEXT_SOAK", "150"))
STEPPED = TASKS // 11
"""Tasks of ten steps; the others have a transaction."""
WORKER_KILLS = max(6, TASKS // 24)
"""By tasks. Others are killed by the test."""
MODULE = "tests.apps.soak_context_tasks"
_TABLES = """
create table effects (result_id bigint not null, step integer not null default 0);
create table runs (result_id bigint not null, step integer not null, at timestamptz not null default clock_timestamp());
"""
_FLAGS = (
    *("--lease-seconds", "3", "--heartbeat-seconds", "0.5", "--reclaim-interval-seconds", "1"),
    *("--grace-seconds", "0.3", "--concurrency", "4", "--preload", MODULE),
)
_PLACES = (("--executor", "fork"), ("--executor", "fork"), ("--executor", "pool"))


def tasks(dice: random.Random) -> list[dict[str, Any]]:
    """All of a run, shuffled: every point with both victims, the same number of each."""
    common = {"takes_context": True, "max_attempts": 60, "backoff_seconds": 0.2}
    found: list[dict[str, Any]] = [{"task_path": f"{MODULE}.ten_steps", **common} for _ in range(STEPPED)]
    for number in range(TASKS - STEPPED):
        victim = "worker" if number < WORKER_KILLS else "task" if number < 2 * WORKER_KILLS else ""
        args = [POINTS[number % len(POINTS)], victim]
        found.append({"task_path": f"{MODULE}.once", "args": args, **common})
    dice.shuffle(found)
    return found


class Fleet:
    """Workers of which each is replaced when it has ended."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.done: Counter[str] = Counter()
        self.started: list[WorkerProcess] = []
        self._places = [self._start(place) for place in range(len(_PLACES))]

    def _start(self, place: int) -> WorkerProcess:
        worker = WorkerProcess(self._dsn, *_FLAGS, *_PLACES[place], allowed=MODULE)
        self.started.append(worker)
        return worker

    def replace(self) -> None:
        for place, worker in enumerate(self._places):
            if worker.process.poll() is not None:
                self.done["workers killed"] += worker.process.returncode == -signal.SIGKILL
                self._places[place] = self._start(place)

    def hit(self, dice: random.Random) -> None:
        """Kill a worker, or freeze it until its leases are over."""
        worker = dice.choice(self._places)
        if worker.process.poll() is not None:
            return
        if dice.random() < 0.5:
            worker.signal(signal.SIGKILL)
            worker.process.wait()
        else:
            worker.signal(signal.SIGSTOP)
            time.sleep(4.5)
            worker.signal(signal.SIGCONT)
            self.done["workers frozen"] += 1

    def close(self) -> None:
        for worker in self.started:
            worker.__exit__(None, None, None)


def open_tasks(database: Database) -> int | None:
    """How many have not ended; None while the database does not answer."""
    try:
        with database.connect() as connection:
            (left,) = connection.execute("select count(*) from task_runs where finished_at is null").fetchall()
            return int(left[0])
    except psycopg.OperationalError:
        return None


@pytest.mark.chaos
@pytest.mark.timeout(TASKS / 4 + 180)
def test_context_effects_happen_once(
    own_server: tuple[EmbeddedServer, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each effect exactly once, each task successful, no run of a step after it was stored."""
    server, database = own_server
    monkeypatch.setenv("DATABASE_URL", database.dsn)
    dice = random.Random(TASKS)
    with database.connect() as connection:
        connection.execute(_TABLES)
        connection.execute("select count(*) from reproq_enqueue_many(%s)", [Jsonb(tasks(dice))])
    fleet = Fleet(database.dsn)
    crashes = 1 + TASKS // 2000
    try:
        left: int | None = TASKS
        next_hit = time.monotonic() + 3
        began = time.monotonic()
        while left != 0:
            fleet.replace()
            if time.monotonic() > next_hit and left is not None and left > TASKS // 20:
                next_hit = time.monotonic() + dice.uniform(2, 6)
                if fleet.done["PostgreSQL crashes"] < crashes and left < TASKS * (
                    1 - fleet.done["PostgreSQL crashes"] / crashes
                ):
                    server.stop("immediate")
                    server.start()
                    fleet.done["PostgreSQL crashes"] += 1
                else:
                    fleet.hit(dice)
            time.sleep(0.1)
            left = open_tasks(database)
        fleet.done["seconds"] = round(time.monotonic() - began)
    finally:
        fleet.close()
    check(database, fleet.done)


def check(database: Database, done: Counter[str]) -> None:
    """Print the numbers of the run, and compare the tables."""
    with database.connect() as connection:

        def number(query: str) -> int:
            (found,) = connection.execute(query.encode()).fetchone() or (None,)
            return int(found or 0)

        numbers = {
            "tasks": TASKS,
            "of ten steps": STEPPED,
            **done,
            "successful": number("select count(*) from task_runs where status = 'SUCCESSFUL'"),
            "attempts": number("select sum(attempts) from task_runs"),
            "leases lost": number("select sum(lost_count) from task_runs"),
            "steps stored": number("select count(*) from reproq_steps"),
            "runs of plain steps": number("select count(*) from runs"),
            "effects": number("select count(*) from effects"),
            "different effects": number("select count(distinct (result_id, step)) from effects"),
            "runs after their step was stored": number(
                "select count(*) from runs r join reproq_steps s"
                " on s.result_id = r.result_id and s.name = 'step ' || r.step and r.at > s.stored_at"
            ),
        }
    print(json.dumps(numbers, indent=1))
    effects = TASKS - STEPPED + 5 * STEPPED
    assert numbers["successful"] == TASKS
    assert (numbers["effects"], numbers["different effects"]) == (effects, effects)
    assert numbers["steps stored"] == 10 * STEPPED
    assert numbers["runs after their step was stored"] == 0
    assert numbers["workers killed"] >= WORKER_KILLS // 2
