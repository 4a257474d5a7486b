"""Producers have to notify a worker that waits, and no other."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.database import Database, wait_until
from tests.support.workers import TASKS, WorkerProcess, enqueue, row, wait_for_status

WAITING = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted"


def wait_for_waiting(database: Database, number: int) -> None:
    """Until this number of workers wait for notifications of one queue."""
    with database.connect() as observer:
        wait_until(lambda: observer.execute(WAITING).fetchone() == (number,), what=f"{number} workers wait", seconds=10)


def test_worker_waits_only_while_it_has_a_free_slot(database: Database, tmp_path: Path) -> None:
    """Idle: it waits. Full: it does not. Killed: its session is gone, and with it what it asked for."""
    with WorkerProcess(database.dsn, "--concurrency", "1") as worker:
        worker.ready()
        wait_for_waiting(database, 1)
        task = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 1)
        wait_for_waiting(database, 0)
        assert row(database, task)["status"] == "RUNNING"
        wait_for_status(database, task, "SUCCESSFUL")
        wait_for_waiting(database, 1)
        worker.signal(signal.SIGKILL)
        worker.wait()
        wait_for_waiting(database, 0)


def test_worker_finds_a_task_that_no_producer_notified_of(database: Database, tmp_path: Path) -> None:
    """Enqueued while the worker was full, committed while it waits, by one who need not and does not notify."""
    with (
        WorkerProcess(database.dsn, "--concurrency", "1") as worker,
        database.connect(autocommit=False) as producer,
        database.connect() as listening,
    ):
        worker.ready()
        listening.execute("listen reproq_ready")
        wait_for_waiting(database, 1)
        first = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 1)
        assert [notify.payload for notify in listening.notifies(timeout=5, stop_after=1)] == ["default"]
        wait_for_waiting(database, 0)
        query = "select reproq_enqueue(%s, '[1, 1]')"
        (second,) = producer.execute(query, [f"{TASKS}.add"]).fetchone() or (0,)
        wait_for_status(database, first, "SUCCESSFUL")
        wait_for_waiting(database, 1)
        producer.commit()
        wait_for_status(database, second, "SUCCESSFUL", seconds=3)
        assert list(listening.notifies(timeout=0)) == []
