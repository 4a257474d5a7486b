"""Workers that run the pool, on a real database."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

from psycopg.types.json import Jsonb

from tests.support.database import Database, wait_until
from tests.support.executing import is_alive
from tests.support.workers import WorkerProcess, pids_in, row, wait_for_status

TASKS = "tests.apps.pool_tasks"


def worker(database: Database, concurrency: int, *flags: str) -> WorkerProcess:
    options = ("--executor", "pool", "--preload", TASKS, "--concurrency", str(concurrency), "--grace-seconds", "1")
    return WorkerProcess(database.dsn, *options, *flags, allowed=TASKS)


def enqueue(database: Database, name: str, calls: Sequence[tuple[object, ...]], **options: object) -> list[int]:
    """Enqueue tasks of one path, one for each list of arguments."""
    tasks = [{"task_path": f"{TASKS}.{name}", "args": args, "dedupe": False, **options} for args in calls]
    with database.connect() as connection:
        query = "select result_id from reproq_enqueue_many(%s) order by ordinal"
        return [found[0] for found in connection.execute(query, [Jsonb(tasks)])]


def count(database: Database, status: str) -> int:
    with database.connect() as connection:
        found = connection.execute("select count(*) from task_runs where status = %s", [status]).fetchone()
    assert found is not None
    return int(found[0])


def wait_for(database: Database, status: str, number: int, seconds: float = 15) -> None:
    wait_until(lambda: count(database, status) == number, what=f"{number} {status}", seconds=seconds)


def test_pool_two_workers_run_each_task_once(database: Database, tmp_path: Path) -> None:
    """Claims run ahead on both; every task is run once, by one of them, and charged one attempt."""
    log = tmp_path / "log"
    with worker(database, 2).ready(), worker(database, 2).ready():
        enqueue(database, "note", [(str(log),) for _ in range(1500)])
        wait_for(database, "SUCCESSFUL", 1500)
    assert log.read_text().count("\n") == 1500
    with database.connect() as connection:
        assert connection.execute("select count(*) from task_runs where attempts <> 1").fetchone() == (0,)


def test_pool_task_does_not_wait_behind_a_long_one_while_another_worker_is_idle(
    database: Database, tmp_path: Path
) -> None:
    """A worker that has learnt that tasks are short claims ahead, and then meets a long one: what it cannot start goes
    back at once, uncharged, and the other worker runs it."""
    log = str(tmp_path / "log")
    with worker(database, 1).ready() as busy:
        enqueue(database, "note", [("/dev/null",) for _ in range(200)])
        wait_for(database, "SUCCESSFUL", 200)
        with worker(database, 1).ready():
            (long, *short) = enqueue(database, "note", [(log, 4), *[(log,) for _ in range(40)]])
            began = time.monotonic()
            wait_for(database, "SUCCESSFUL", 240, 4)
            assert time.monotonic() - began < 3.5
            assert row(database, long)["status"] == "RUNNING"
            assert all(row(database, result_id)["attempts"] == 1 for result_id in short)
            wait_for_status(database, long, "SUCCESSFUL")
        assert busy.process.poll() is None
    assert Path(log).read_text().count("\n") == 41


def test_pool_stores_resource_usage(database: Database) -> None:
    """In metadata_json, next to the metadata of the task itself."""
    with worker(database, 1).ready():
        (result_id,) = enqueue(database, "progress", [()], takes_context=True)
        found = wait_for_status(database, result_id, "SUCCESSFUL")
    metadata = found["metadata_json"]
    assert metadata["progress"] == {"fraction": 0.5, "message": "half"}
    assert metadata["reproq"]["wall_seconds"] >= 0


def test_pool_killed_child_fails_one_task_with_its_crash_class(database: Database, tmp_path: Path) -> None:
    """The row has the end of its process; its neighbours succeed at their first attempt."""
    log = str(tmp_path / "log")
    with worker(database, 1).ready():
        enqueue(database, "note_or_die", [("/dev/null", False) for _ in range(50)])
        wait_for(database, "SUCCESSFUL", 50)
        calls = [(log, number == 10) for number in range(30)]
        ids = enqueue(database, "note_or_die", calls, max_attempts=1)
        wait_for(database, "SUCCESSFUL", 79)
        error = wait_for_status(database, ids[10], "FAILED")["errors_json"][0]
    assert (error["kind"], error["crash_class"], error["signal"]) == ("crashed", "signal", "SIGKILL")
    assert Path(log).read_text().count("\n") == 30


def test_pool_task_is_cancelled(database: Database, tmp_path: Path) -> None:
    """Within half a second and the grace; what waits behind it is not touched."""
    log = tmp_path / "log"
    with worker(database, 1).ready():
        (result_id,) = enqueue(database, "note", [(str(log), 30)], max_attempts=1)
        pids_in(log)
        with database.connect() as connection:
            connection.execute("select reproq_cancel(%s)", [result_id])
        found = wait_for_status(database, result_id, "FAILED", seconds=5)
        assert found["errors_json"][0]["kind"] == "cancelled"
        (other,) = enqueue(database, "echo", [(1,)])
        wait_for_status(database, other, "SUCCESSFUL")


def test_pool_shutdown_gives_back_tasks_not_started(database: Database, tmp_path: Path) -> None:
    """SIGTERM with many tasks in hand: every row is done or READY without a charge.

    Begun and not done is at most what the two children ran when the time was over.
    """
    log = tmp_path / "log"
    with worker(database, 2, "--shutdown-timeout", "300ms").ready() as process:
        enqueue(database, "note", [("/dev/null",) for _ in range(100)])
        wait_for(database, "SUCCESSFUL", 100)
        enqueue(database, "note", [(str(log), 0.002) for _ in range(2000)])
        wait_until(lambda: log.exists() and log.read_text().count("\n") > 50, what="some have run")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert count(database, "RUNNING") == 0
    done = count(database, "SUCCESSFUL") - 100
    assert 0 <= log.read_text().count("\n") - done <= 2
    with database.connect() as connection:
        query = "select count(*), max(attempts) from task_runs where status = 'READY'"
        assert connection.execute(query).fetchone() == (2000 - done, 0)


def test_pool_leaves_no_process_of_a_killed_worker(database: Database, tmp_path: Path) -> None:
    """SIGKILL of the worker: children of the pool, their families in sessions of their own, and the template go."""
    log = tmp_path / "log"
    with worker(database, 2).ready() as process:
        enqueue(database, "family", [(str(log), 60), (str(log), 60)])
        pids = pids_in(log, 4)
        process.signal(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), what="all have gone", seconds=4)


def test_pool_runs_the_tasks_of_a_dead_worker(database: Database, tmp_path: Path) -> None:
    """What it held comes back when its leases end: each task ends well, the started ones charged for the loss."""
    log = tmp_path / "log"
    short = ("--lease-seconds", "2", "--heartbeat-seconds", "0.5", "--reclaim-interval-seconds", "1")
    with worker(database, 2, *short).ready() as process:
        enqueue(database, "note", [(str(log), 0.01) for _ in range(400)])
        wait_until(lambda: log.exists() and log.read_text().count("\n") > 20, what="some have run")
        process.signal(signal.SIGKILL)
        process.wait()
    with database.connect() as connection:
        connection.execute(
            "update task_runs set spec_json = jsonb_set(spec_json, '{exec}', '{\"backoff_seconds\": 0}')"
        )
    with worker(database, 2, *short).ready():
        wait_for(database, "SUCCESSFUL", 400, 15)


def test_pool_keeps_children_between_tasks(database: Database) -> None:
    """A task that comes now and then finds the child of the last one."""
    with worker(database, 2).ready():
        pids = set()
        for _ in range(5):
            (result_id,) = enqueue(database, "pid", [()])
            pids.add(wait_for_status(database, result_id, "SUCCESSFUL")["return_json"])
    assert len(pids) <= 2


def test_pool_sighup_reloads_the_code(database: Database) -> None:
    """Children born afterwards come from another template."""
    with worker(database, 1).ready() as process:
        (before,) = enqueue(database, "pid", [()])
        former = wait_for_status(database, before, "SUCCESSFUL")["return_json"]
        process.signal(signal.SIGHUP)
        process.wait_for("code_reloaded")
        (after,) = enqueue(database, "pid", [()])
        assert wait_for_status(database, after, "SUCCESSFUL")["return_json"] != former
        wait_until(lambda: not is_alive(int(former)), what="the old child is gone")


def test_pool_child_of_a_frozen_worker_starts_no_further_task(database: Database, tmp_path: Path) -> None:
    """Tasks of a frozen worker may soon belong to another one. When it goes on, each task has run once."""
    log = tmp_path / "log"
    with worker(database, 1).ready() as process:
        enqueue(database, "note", [("/dev/null",) for _ in range(1000)])  # it learns that they are short
        wait_for(database, "SUCCESSFUL", 1000)
        enqueue(database, "note", [("/dev/null",) for _ in range(300)] + [(str(log), 0.2) for _ in range(30)])
        wait_until(log.exists, what="the first slow task")
        process.signal(signal.SIGSTOP)
        before = log.read_text().count("\n")
        wait_until(lambda: time.time() - log.stat().st_mtime > 1, what="no more starts", seconds=30)
        begun = log.read_text().count("\n") - before
        process.signal(signal.SIGCONT)
        wait_for(database, "SUCCESSFUL", 1330, seconds=30)
    assert begun <= 4
    assert log.read_text().count("\n") == 30
