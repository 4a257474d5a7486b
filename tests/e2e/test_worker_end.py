"""How a worker ends: drained, stopped by a signal, killed, or refused at the start."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from tests.support.commands import run_impatiently
from tests.support.database import Database, wait_until
from tests.support.executing import is_alive
from tests.support.proxy import Proxy
from tests.support.workers import TASKS, WorkerProcess, enqueue, pids_in, row, wait_for_status


def test_worker_drain_waits_for_tasks_due_within_a_minute(database: Database) -> None:
    """With --drain a retry and a task due soon still run; one due tomorrow is left. Exit 0."""
    retried = enqueue(database, "fail", max_attempts=2, backoff_seconds=0.3)
    with database.connect() as connection:
        found = connection.execute("select now() + interval '1 second', now() + interval '1 day'").fetchone()
    assert found is not None
    soon = enqueue(database, "add", 1, 1, run_after=found[0].isoformat())
    later = enqueue(database, "add", 1, 1, run_after=found[1].isoformat())
    with WorkerProcess(database.dsn, "--drain") as worker:
        assert worker.wait() == 0
    assert row(database, retried)["attempts"] == 2
    assert row(database, soon)["status"] == "SUCCESSFUL"
    assert row(database, later)["status"] == "READY"


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_drain_runs_a_chain_whose_steps_save_metadata(database: Database, mode: str) -> None:
    """The end of a step is stored after its metadata; the worker waits for both, and for the steps that follow."""
    step = {"task_path": f"{TASKS}.report_twice", "takes_context": True}
    with database.connect() as connection:
        connection.execute("select reproq_chain(%s)", [Jsonb([step] * 8)])
    with WorkerProcess(database.dsn, "--drain", "--executor", mode) as worker:
        assert worker.wait(20) == 0
    with database.connect() as connection:
        query = "select count(*) from task_runs where status = 'SUCCESSFUL'"
        assert connection.execute(query).fetchone() == (8,)


def test_worker_that_is_stopped_leaves_the_registry(database: Database) -> None:
    """It leaves the registry; one that is killed stays there until five minutes are over."""

    def live() -> list[tuple[str]]:
        with database.connect() as connection:
            return connection.execute("select worker_id from reproq_live_workers order by worker_id").fetchall()

    with (
        WorkerProcess(database.dsn, "--worker-id", "ends").ready() as ends,
        WorkerProcess(database.dsn, "--worker-id", "dies").ready() as dies,
    ):
        assert live() == [("dies",), ("ends",)]
        ends.signal(signal.SIGTERM)
        assert ends.wait() == 0
        assert live() == [("dies",)]
        dies.signal(signal.SIGKILL)
        dies.wait()
        assert live() == [("dies",)]


def test_worker_that_cannot_store_its_results_says_so_by_its_exit_status(database: Database, tmp_path: Path) -> None:
    """The database is silent while the worker ends: exit 1, results_lost, and the lease brings the task back."""
    with (
        Proxy(database.dsn) as proxy,
        WorkerProcess(proxy.dsn, "--shutdown-timeout", "1s", "--lease-seconds", "60") as worker,
    ):
        worker.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pid"), 0.5)
        pids_in(tmp_path / "pid")
        proxy.silent = True
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 1
        worker.wait_for("results_lost", count=1)
    assert row(database, result_id)["status"] == "RUNNING"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_signal_lets_running_tasks_end_and_stops_claiming(
    database: Database, tmp_path: Path, number: signal.Signals
) -> None:
    """The running task's result is stored, the waiting task stays, exit 0."""
    with WorkerProcess(database.dsn, "--concurrency", "1") as worker:
        worker.ready()
        running = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 1)
        pids_in(tmp_path / "pids")
        waiting = enqueue(database, "add", 1, 1)
        worker.signal(number)
        worker.wait_for("worker_draining")
        assert worker.wait() == 0
    assert row(database, running)["status"] == "SUCCESSFUL"
    assert row(database, waiting)["status"] == "READY"


@pytest.mark.parametrize("mode", ["fork", "pool"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_worker_signal_does_not_wait_for_slow_imports(
    database: Database, tmp_path: Path, number: signal.Signals, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose application is still being imported ends at once, the process that imports it with it."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    note = tmp_path / "pid"
    code = f"import os, time\nopen({str(note)!r}, 'w').write(f'{{os.getpid()}}\\n')\ntime.sleep(60)\n"
    (tmp_path / "slow_app.py").write_text(code)
    with WorkerProcess(database.dsn, "--executor", mode, "--preload", "slow_app") as worker:
        (template,) = pids_in(note)
        worker.signal(number)
        assert worker.wait() == 0
        assert not is_alive(template)
    assert worker.plain == []


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_killed_right_after_its_stop_leaves_no_lease(database: Database, tmp_path: Path, mode: str) -> None:
    """As a wrapper does on ^C: SIGINT, and SIGKILL a quarter of a second later. The guard releases the tasks."""
    with WorkerProcess(database.dsn, "--executor", mode).ready() as worker:
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 60)
        (pid,) = pids_in(tmp_path / "pids")
        worker.signal(signal.SIGINT)
        worker.wait_for("worker_draining")
        time.sleep(0.25)
        worker.signal(signal.SIGKILL)
        found = wait_for_status(database, result_id, "READY", seconds=10)
        assert found["attempts"] == 0
        assert not is_alive(pid)
    with database.connect() as connection:
        wait_until(lambda: not connection.execute("select from reproq_workers").fetchall(), what="it is not registered")


def test_worker_killed_without_a_stop_keeps_its_leases(database: Database, tmp_path: Path) -> None:
    """A task may have done it: the attempt counts, or the task would kill one worker after another."""
    with WorkerProcess(database.dsn).ready() as worker:
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 60)
        (pid,) = pids_in(tmp_path / "pids")
        worker.signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), what="its task is dead")
        time.sleep(1.5)
        assert row(database, result_id)["status"] == "RUNNING"


def test_worker_does_not_log_a_cancelled_task_as_released(database: Database, tmp_path: Path) -> None:
    """The worker does not know of the cancel when it stops: the released task ends, and the log has its event."""
    flags = ("--shutdown-timeout", "0s", "--grace-seconds", "0.2")
    with WorkerProcess(database.dsn, *flags).ready() as worker:
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 60)
        pids_in(tmp_path / "pids")
        with database.connect() as silent:
            silent.execute("set session_replication_role = replica")  # no trigger notifies
            silent.execute("update task_runs set cancel_requested = true where result_id = %s", [result_id])
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert row(database, result_id)["errors_json"][-1]["kind"] == "cancelled"
    assert (worker.seen("task_cancelled", task_id=result_id), worker.seen("task_released")) == (1, 0)


def test_worker_shutdown_gives_back_unfinished_tasks_uncharged(database: Database, tmp_path: Path) -> None:
    """After shutdown-timeout, TERM, grace and KILL the task is READY again as if it had never been claimed."""
    flags = ("--shutdown-timeout", "300ms", "--grace-seconds", "0.3")
    with WorkerProcess(database.dsn, *flags) as worker:
        worker.ready()
        result_id = enqueue(database, "note_and_resist", str(tmp_path / "pids"), 60)
        (pid,) = pids_in(tmp_path / "pids")
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert time.monotonic() - began < 0.3 + 0.3 + 2
        assert not is_alive(pid)
    given_back = row(database, result_id)
    assert (given_back["status"], given_back["attempts"], given_back["errors_json"]) == ("READY", 0, [])


def test_worker_second_signal_ends_at_once(database: Database, tmp_path: Path) -> None:
    """No waiting for shutdown-timeout or grace; the task is still given back uncharged."""
    with WorkerProcess(database.dsn, "--grace-seconds", "30") as worker:
        worker.ready()
        result_id = enqueue(database, "note_and_resist", str(tmp_path / "pids"), 60)
        (pid,) = pids_in(tmp_path / "pids")
        worker.signal(signal.SIGTERM)
        worker.wait_for("worker_draining")
        began = time.monotonic()
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert time.monotonic() - began < 2
        assert not is_alive(pid)
    assert (row(database, result_id)["status"], row(database, result_id)["attempts"]) == ("READY", 0)


def test_worker_runs_the_task_of_a_killed_worker(database: Database, tmp_path: Path) -> None:
    """SIGKILL of the worker: its children die too, and a second worker has the task at the end of the lease."""
    short = ("--lease-seconds", "2", "--heartbeat-seconds", "0.5", "--grace-seconds", "0.3")
    with WorkerProcess(database.dsn, *short) as first:
        first.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 3, backoff_seconds=0.1)
        (pid,) = pids_in(tmp_path / "pids")
        with WorkerProcess(database.dsn, *short, "--reclaim-interval-seconds", "60") as second:
            second.ready()
            first.signal(signal.SIGKILL)
            died = time.monotonic()
            wait_until(lambda: not is_alive(pid), what="the orphan is gone", seconds=2)
            pids_in(tmp_path / "pids", 2)
            assert time.monotonic() - died < 4
            done = wait_for_status(database, result_id, "SUCCESSFUL")
    assert (done["attempts"], done["lost_count"]) == (2, 1)
    assert done["errors_json"][0]["kind"] == "lease_expiry"


def test_worker_with_the_same_id_does_not_touch_the_other_ones_lease(database: Database, tmp_path: Path) -> None:
    """Ownership is by incarnation: the namesake's heartbeat neither renews nor returns the other's task."""
    flags = ("--worker-id", "same", "--lease-seconds", "2", "--heartbeat-seconds", "0.3", "--grace-seconds", "0.2")
    with WorkerProcess(database.dsn, *flags) as first:
        first.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 4)
        pids_in(tmp_path / "pids")
        with WorkerProcess(database.dsn, *flags) as second:
            second.ready()
            done = wait_for_status(database, result_id, "SUCCESSFUL")
            assert second.seen("leases_unknown") == 0
    assert done["attempts"] == 1


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reproq_listen", *words], capture_output=True, text=True, timeout=18, check=False
    )


def test_worker_without_schema_names_the_migrate_command(empty_database: Database) -> None:
    """Exit 3, and the exact command that fixes it, the password hidden."""
    done = run("worker", "--dsn", empty_database.dsn)
    assert done.returncode == 3
    assert "migrate --dsn" in done.stderr
    assert empty_database.name in done.stderr
    assert "Traceback" not in done.stderr


def test_worker_refuses_another_contract_number(database: Database) -> None:
    """A worker does not start on a schema whose rules it does not know. Exit 3."""
    with database.connect() as connection:
        connection.execute(
            "create or replace function reproq_contract(out oldest integer, out newest integer) language sql"
            " as 'select 99, 99'"
        )
    done = run("worker", "--dsn", database.dsn)
    assert done.returncode == 3
    assert "contract 99" in done.stderr


def test_worker_exits_4_when_the_database_does_not_answer() -> None:
    """Exit 4 after a few tries, and the password appears nowhere."""
    done = run_impatiently("worker", "--dsn", "postgresql://u:hunter2@127.0.0.1:1/d")
    assert done.returncode == 4
    assert "did not answer" in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["worker", "--concurency", "3"], "did you mean --concurrency?"),
        (["wrker"], "did you mean worker?"),
        (["worker", "--concurrency"], "--concurrency requires argument"),
        (["worker", "--concurrency", "0", "--dsn", "x=y"], "--concurrency: needs a whole number"),
        (["worker", "--dsn", "mysql://u:hunter2@h/d"], "postgresql://"),
        (["worker", "--dsn", "host=h", "hunter2"], "an argument is missing or not expected"),
        (["worker", "--drain=yes"], "must not have an argument"),
        (["worker", "--dsn", "host=h", "--python-bin", "/nowhere/python"], "--python-bin"),
        (["migrate", "--dsn", "host=h", "--output", "xml"], "text or json"),
        (["demo", "--files", "0"], "--files"),
    ],
)
def test_bad_words_are_told_in_one_line(words: list[str], said: str) -> None:
    """Exit 2, the flag and the remedy in one line, never a traceback."""
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["worker", "--help"], ["migrate", "-h"], ["demo", "--help"]])
def test_help_teaches(words: list[str]) -> None:
    """Every help text names usage and exit codes or options, and exits 0."""
    done = run(*words)
    assert done.returncode == 0
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_worker_end_version_is_printed_alone(words: list[str]) -> None:
    """Scripts read it."""
    from reproq_listen import __version__

    assert run(*words).stdout == f"{__version__}\n"
