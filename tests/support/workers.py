"""A real worker process, its log as it is written, and what tests ask of the database."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.types.json import Jsonb

from tests.support.database import Database, wait_until
from tests.support.processes import LoggingProcess

TASKS = "tests.apps.worker_tasks"


class WorkerProcess(LoggingProcess):
    """`reproq-listen worker` on a DSN."""

    def __init__(self, dsn: str, *flags: str, allowed: str = TASKS, program: str = "reproq_listen") -> None:
        """`program`: the module to start, ours or one that starts ours."""
        super().__init__(program, "worker", "--dsn", dsn, "--allowed-task-modules", allowed, *flags)

    def ready(self) -> Self:
        """Wait until it has started and its listening is verified."""
        self.wait_for("listen_verified")
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """Wait for its end and return the exit status."""
        return self.process.wait(seconds)


def enqueue(database: Database, function: str, *args: object, **options: object) -> int:
    """Enqueue a task of worker_tasks.py; `options` are parameters of reproq_enqueue_many's tasks."""
    task = {"task_path": f"{TASKS}.{function}", "args": list(args), "dedupe": False, **options}
    with database.connect() as connection:
        row = connection.execute("select result_id from reproq_enqueue_many(%s)", [Jsonb([task])]).fetchone()
    assert row is not None
    return int(row[0])


def row(database: Database, result_id: int) -> dict[str, Any]:
    """The whole row of a task."""
    with database.connect() as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        found = cursor.execute("select * from task_runs where result_id = %s", [result_id]).fetchone()
    assert found is not None
    return found


def wait_for_status(database: Database, result_id: int, status: str, *, seconds: float = 30) -> dict[str, Any]:
    """Wait until a task has a status, and return its row."""
    wait_until(lambda: bool(row(database, result_id)["status"] == status), what=f"task {status}", seconds=seconds)
    return row(database, result_id)


def pids_in(path: Path, count: int = 1) -> list[int]:
    """Wait until a task has written `count` pids, and return them."""
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, what=f"{count} pids in {path}")
    return [int(line) for line in path.read_text().split()]


def port_of(worker: WorkerProcess) -> int:
    """The port of its HTTP server."""
    worker.wait_for("http_started")
    (line,) = (line for line in worker.events if line["event"] == "http_started")
    return int(line["port"])
