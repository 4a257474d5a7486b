"""A task that kills its worker, again and again: its neighbours lose nothing by it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.database import Database, wait_until
from tests.support.workers import WorkerProcess, enqueue, row

TIMES = (
    *("--lease-seconds", "2", "--heartbeat-seconds", "0.5"),
    *("--reclaim-interval-seconds", "1", "--grace-seconds", "1"),
)


@pytest.mark.parametrize("mode", ["spawn", "fork", "pool"])
def test_worker_neighbours_of_a_crashing_task_succeed(database: Database, tmp_path: Path, mode: str) -> None:
    """It takes them with it twice at most. From then on it runs alone, however often it kills, and their third and last
    attempt is safe from it."""
    neighbours = [
        enqueue(database, "note_and_sleep", str(tmp_path / str(n)), 1.0, max_attempts=3, backoff_seconds=0)
        for n in range(3)
    ]
    killer = enqueue(database, "kill_the_worker", 0.5, max_attempts=4, backoff_seconds=0, priority=9)

    def is_over() -> bool:
        return all(row(database, each)["status"] in ("SUCCESSFUL", "FAILED") for each in (*neighbours, killer))

    deaths = 0
    while not is_over():
        with WorkerProcess(database.dsn, *TIMES, "--concurrency", "4", "--executor", mode) as worker:
            wait_until(lambda: worker.process.poll() is not None or is_over(), what="it ends", seconds=30)
            assert worker.process.poll() in (None, -signal.SIGKILL)
            deaths += worker.process.poll() is not None
    assert deaths == 4
    for each in neighbours:
        found = row(database, each)
        assert found["status"] == "SUCCESSFUL"
        assert found["lost_count"] <= 2
    ended = row(database, killer)
    assert ended["status"] == "FAILED"
    assert [error["kind"] for error in ended["errors_json"]] == ["lease_expiry"] * 4
