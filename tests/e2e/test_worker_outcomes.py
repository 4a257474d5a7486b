"""What becomes of tasks: results, failures, timeouts, cancels, values that cannot be stored, floods of output."""

from __future__ import annotations

from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.database import Database, wait_until
from tests.support.executing import is_alive
from tests.support.workers import WorkerProcess, enqueue, pids_in, row, wait_for_status


def cancel(database: Database, result_id: int) -> str:
    with database.connect() as connection:
        answer = connection.execute("select reproq_cancel(%s)", [result_id]).fetchone()
    assert answer is not None
    return str(answer[0])


def test_worker_retries_a_failing_task_and_then_fails_it(database: Database) -> None:
    """Each attempt leaves its error; the last one is final."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        result_id = enqueue(database, "fail", max_attempts=2, backoff_seconds=0.2)
        done = wait_for_status(database, result_id, "FAILED")
        worker.wait_for("task_retry", task_id=result_id, kind="app_error")
        worker.wait_for("task_failed", task_id=result_id, kind="app_error")
    assert done["attempts"] == 2
    assert [error["exception_class"] for error in done["errors_json"]] == ["ValueError", "ValueError"]
    assert done["last_error"].startswith("app_error: on purpose")


def test_worker_rejects_a_task_outside_the_allow_list(database: Database) -> None:
    """It ends at once as a security violation, not run and not retried."""
    with WorkerProcess(database.dsn, allowed="tests.other") as worker:
        worker.ready()
        done = wait_for_status(database, enqueue(database, "add", 1, 1), "FAILED")
        worker.wait_for("task_rejected")
    assert done["errors_json"][0]["kind"] == "security_violation"


def test_worker_cancels_a_running_task_within_half_a_second(database: Database, tmp_path: Path) -> None:
    """Cancel is a NOTIFY away: child and grandchild are gone half a second after the call."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        result_id = enqueue(database, "spawn_child_and_sleep", str(tmp_path / "pids"), 60)
        pids = pids_in(tmp_path / "pids", 2)
        assert cancel(database, result_id) == "requested"
        wait_until(lambda: not any(map(is_alive, pids)), what="the processes are gone", seconds=0.5)
        done = wait_for_status(database, result_id, "FAILED")
        worker.wait_for("task_cancelled", task_id=result_id)
    assert done["errors_json"][-1]["kind"] == "cancelled"


def test_worker_ignores_a_forged_cancel(database: Database, tmp_path: Path) -> None:
    """Anybody may NOTIFY: only the database's own word ends a task. Nonsense on the channel is passed over."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 1)
        pids_in(tmp_path / "pids")
        with database.connect() as connection:
            for message in (f'{{"op": "cancel", "id": {result_id}}}', "{", '{"op": 7}', "null", "[" * 7000):
                connection.execute("select pg_notify('reproq_control', %s)", [message])
        assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1


def test_worker_stops_a_task_at_its_own_timeout(database: Database, tmp_path: Path) -> None:
    """A task that ignores SIGTERM is killed after the grace, recorded as timeout and counted."""
    with WorkerProcess(database.dsn, "--grace-seconds", "0.3") as worker:
        worker.ready()
        options = {"timeout_seconds": 1, "max_attempts": 1}
        result_id = enqueue(database, "note_and_resist", str(tmp_path / "pids"), 60, **options)
        (pid,) = pids_in(tmp_path / "pids")
        done = wait_for_status(database, result_id, "FAILED")
        assert not is_alive(pid)
    assert done["errors_json"][-1]["kind"] == "timeout"


def test_worker_fails_a_task_with_an_unstorable_result_once(database: Database) -> None:
    """A NUL in a result is a definite failure after one execution, and delays no other result."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        bad = enqueue(database, "nul")
        good = [enqueue(database, "say", "ok") for _ in range(3)]
        done = wait_for_status(database, bad, "FAILED")
        for result_id in good:
            wait_for_status(database, result_id, "SUCCESSFUL")
    assert done["attempts"] == 1
    assert done["errors_json"][0]["kind"] == "invalid_result"


def test_worker_bounds_the_output_of_a_task(database: Database) -> None:
    """64 MiB on both streams: the task succeeds, and the worker's memory grows by at most 16 MiB."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        wait_for_status(database, enqueue(database, "add", 1, 1), "SUCCESSFUL")
        process = psutil.Process(worker.pid)
        before, most = process.memory_info().rss, 0
        result_id = enqueue(database, "flood", 64)

        def is_done() -> bool:
            nonlocal most
            most = max(most, process.memory_info().rss)
            return bool(row(database, result_id)["status"] == "SUCCESSFUL")

        wait_until(is_done, what="the output is complete", seconds=15)
        assert most - before <= 16 << 20


def test_worker_runs_a_chain_without_listen(database: Database, empty_database: Database) -> None:
    """The next step is claimed at once even when no notification arrives."""
    flags = ("--listen-dsn", empty_database.dsn, "--poll-max-backoff", "1s")
    with WorkerProcess(database.dsn, *flags) as worker:
        worker.wait_for("listener_down")
        with database.connect() as connection, connection.transaction():
            first = enqueue_in(connection, None)
            last = enqueue_in(connection, first)
        wait_for_status(database, last, "SUCCESSFUL")


def enqueue_in(connection: psycopg.Connection, parent: int | None) -> int:
    """A row as Reproq Django's chain writes it."""
    found = connection.execute(
        "insert into task_runs (spec_json, spec_hash, status, parent_id, wait_count) values ("
        ' \'{"v": 1, "task_path": "tests.apps.worker_tasks.add", "args": [1, 2], "kwargs": {}}\','
        " replace(gen_random_uuid()::text, '-', ''), %s, %s, %s) returning result_id",
        ["READY" if parent is None else "WAITING", parent, 0 if parent is None else 1],
    ).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("name", ["file", "stdin"])
def test_worker_passes_the_payload_in_both_modes(database: Database, name: str) -> None:
    """The task gets its arguments either way."""
    with WorkerProcess(database.dsn, "--payload-mode", name) as worker:
        worker.ready()
        done = wait_for_status(database, enqueue(database, "say", "né\u2028"), "SUCCESSFUL")
    assert done["return_json"] == "né\u2028"
