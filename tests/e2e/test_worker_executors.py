"""What the worker makes of its executors, in each mode: accounts, progress and output in row and log; templates."""

from __future__ import annotations

import itertools
import json
import resource
import signal
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from tests.support.database import Database, wait_until
from tests.support.workers import WorkerProcess, enqueue, row, wait_for_status

MODES = ["spawn", "fork", "pool"]
OTHERS = "tests.apps.tasks"


@pytest.mark.parametrize("mode", MODES)
def test_worker_stores_resource_usage(database: Database, mode: str) -> None:
    """Of a success in metadata_json.reproq, of a failure in its error."""
    good = enqueue(database, "add", 1, 2)
    bad = enqueue(database, "fail", max_attempts=1)
    with WorkerProcess(database.dsn, "--drain", "--executor", mode) as worker:
        assert worker.wait(20) == 0
    account = row(database, good)["metadata_json"]["reproq"]
    (error,) = row(database, bad)["errors_json"]
    for usage in (account, error):
        assert 0 <= usage["cpu_seconds"] < 60
        assert 0 < usage["wall_seconds"] < 60
    assert error["kind"] == "app_error"


@pytest.mark.parametrize("mode", MODES)
def test_worker_stores_progress_while_the_task_runs(database: Database, tmp_path: Path, mode: str) -> None:
    """In metadata_json, next to earlier keys; the last values are there at the end."""
    with WorkerProcess(database.dsn, "--executor", mode) as worker:
        worker.ready()
        result_id = enqueue(database, "report_progress", str(tmp_path / "go"), takes_context=True)
        wait_until(
            lambda: "rows" in row(database, result_id)["metadata_json"], what="the row has the progress", seconds=10
        )
        seen = row(database, result_id)
        assert seen["status"] == "RUNNING"
        assert seen["metadata_json"]["progress"] == {"fraction": 0.5, "message": "half"}
        (tmp_path / "go").touch()
        done = wait_for_status(database, result_id, "SUCCESSFUL")
        assert done["metadata_json"]["progress"] == {"fraction": 1.0, "message": "all"}
        assert done["metadata_json"]["rows"] == 10
        assert "wall_seconds" in done["metadata_json"]["reproq"]


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_stores_all_metadata_of_short_tasks(database: Database, mode: str) -> None:
    """The last metadata may come while the first is being written: both are in the row when the task is done."""
    ids = [enqueue(database, "report_twice", takes_context=True) for _ in range(150)]
    with WorkerProcess(database.dsn, "--drain", "--concurrency", "4", "--executor", mode) as worker:
        assert worker.wait(30) == 0
    found = [row(database, result_id)["metadata_json"] for result_id in ids]
    assert [(metadata["progress"]["fraction"], metadata["rows"]) for metadata in found] == [(0.5, 7)] * 150


@pytest.mark.parametrize("mode", MODES)
def test_worker_drops_unstorable_metadata_with_a_warning(database: Database, mode: str) -> None:
    """The task succeeds, and its next note is kept."""
    result_id = enqueue(database, "report_what_cannot_be_stored", takes_context=True)
    with WorkerProcess(database.dsn, "--drain", "--executor", mode) as worker:
        assert worker.wait(20) == 0
        assert worker.seen("task_warning", task_id=result_id) == 1
    found = row(database, result_id)
    assert (found["status"], found["metadata_json"]["name"]) == ("SUCCESSFUL", "fine")


@pytest.mark.parametrize("mode", MODES)
def test_worker_logs_output_apart_from_the_result(database: Database, mode: str) -> None:
    """Each stream once, with its size."""
    result_id = enqueue(database, "say_on_both", "to out", "to err")
    with WorkerProcess(database.dsn, "--drain", "--executor", mode) as worker:
        assert worker.wait(20) == 0
        for stream, text in (("stdout", "to out\n"), ("stderr", "to err\n")):
            assert worker.seen("task_output", task_id=result_id, stream=stream, text=text, bytes=7) == 1
    assert row(database, result_id)["return_json"] is None


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_ends_if_its_forkserver_cannot_start(database: Database, tmp_path: Path, mode: str) -> None:
    """Exit code 7 at once, with the child's own error; nothing was claimed."""
    result_id = enqueue(database, "add", 1, 2)
    began = time.monotonic()
    with WorkerProcess(database.dsn, "--executor", mode, "--preload", "no_such_application") as worker:
        assert worker.wait(15) == 7
        worker_said = "".join(worker.plain)
    assert time.monotonic() - began < 15
    assert "No module named 'no_such_application'" in worker_said
    assert row(database, result_id)["attempts"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_worker_sighup_reloads_the_code(
    database: Database, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that start later run the new code; the worker goes on."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = tmp_path / "changing_app.py"
    code.write_text("def version():\n    return 'old'\n")
    flags = ("--executor", mode) if mode == "spawn" else ("--executor", mode, "--preload", "changing_app")
    with WorkerProcess(database.dsn, *flags, allowed="changing_app") as worker:
        worker.ready()
        assert wait_for_status(database, enqueue_version(database), "SUCCESSFUL")["return_json"] == "old"
        code.write_text("def version():\n    return 'newer'\n")
        worker.signal(signal.SIGHUP)
        worker.wait_for("code_reloaded")
        assert wait_for_status(database, enqueue_version(database), "SUCCESSFUL")["return_json"] == "newer"
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


def enqueue_version(database: Database) -> int:
    return enqueue_path(database, "changing_app.version")


def enqueue_path(database: Database, path: str, *args: object, **options: object) -> int:
    with database.connect() as connection:
        text = json.dumps([{"task_path": path, "args": args, "dedupe": False, **options}])
        found = connection.execute("select result_id from reproq_enqueue_many(%s)", [text]).fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("mode", MODES)
def test_worker_stores_how_the_process_of_a_failure_ended(database: Database, mode: str) -> None:
    """Class of the crash, exit or signal, and what it used."""
    ways: list[tuple[str, tuple[object, ...], dict[str, object]]] = [
        ("leave", (3,), {"kind": "crashed", "crash_class": "exit", "exit_status": 3}),
        ("kill_me", (11,), {"kind": "crashed", "crash_class": "signal", "signal": "SIGSEGV"}),
        ("burn", (60,), {"kind": "timeout", "crash_class": "timeout", "signal": "SIGTERM"}),
        ("allocate", (400,), {"kind": "app_error", "crash_class": "oom", "exception_class": "MemoryError"}),
    ]
    ids = [
        enqueue_path(database, f"{OTHERS}.{name}", *args, max_attempts=1, timeout_seconds=2) for name, args, _ in ways
    ]
    flags = ("--drain", "--executor", mode, "--max-memory-per-task", "200M")
    with WorkerProcess(database.dsn, *flags, allowed=OTHERS) as worker:
        assert worker.wait(20) == 0
    for result_id, (_, _, expected) in zip(ids, ways, strict=True):
        (error,) = row(database, result_id)["errors_json"]
        assert {name: error.get(name) for name in expected} == expected
        assert error["wall_seconds"] >= 0
        assert error["cpu_seconds"] >= 0


@pytest.mark.parametrize("mode", MODES)
def test_worker_passes_environment_and_directory_to_tasks(
    database: Database, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session and a group of its own, umask 077, no core dumps, few descriptors; no secret of the server's."""
    monkeypatch.setenv("METRICS_AUTH_TOKEN", "secret")
    monkeypatch.setenv("MINE", "x")
    monkeypatch.setenv("OTHER", "x")
    places = enqueue_path(database, f"{OTHERS}.circumstances")
    names = enqueue_path(database, f"{OTHERS}.environment")
    flags = ("--drain", "--executor", mode, "--executor-env", "MINE")
    with WorkerProcess(database.dsn, *flags, allowed=OTHERS) as worker:
        assert worker.wait(20) == 0
    found = row(database, places)["return_json"]
    assert (found["umask"], found["core"], found["leads_session"], found["leads_group"]) == (0o077, 0, True, True)
    assert found["descriptors"] <= 12  # the pool's child has its channels, the others a pipe for the result
    seen = row(database, names)["return_json"]
    assert {"MINE", "PATH"} <= set(seen)
    assert not {"OTHER", "METRICS_AUTH_TOKEN", "REPROQ_EXECUTOR_ALLOW"} & set(seen)
    assert database.dsn not in str(seen)


@pytest.mark.parametrize("mode", MODES)
def test_worker_gives_a_cancelled_task_its_grace(database: Database, tmp_path: Path, mode: str) -> None:
    """It asks its context whether it is to stop."""
    path = tmp_path / "pid"
    with WorkerProcess(database.dsn, "--executor", mode, allowed=OTHERS).ready():
        result_id = enqueue_path(database, f"{OTHERS}.hold_a_stop", str(path), takes_context=True, max_attempts=1)
        wait_until(path.exists, what="it runs")
        with database.connect() as connection:
            connection.execute("select reproq_cancel(%s)", [result_id])
        (error,) = wait_for_status(database, result_id, "FAILED")["errors_json"]
    assert error["kind"] == "cancelled"
    assert Path(f"{path}.held").read_text() == "bye"


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_restarts_a_dead_forkserver_with_growing_pauses(
    database: Database, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its code is broken; when that is whole again, so is the worker."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = tmp_path / "changing_app.py"
    code.write_text("def version():\n    return 'old'\n")
    flags = ("--executor", mode, "--preload", "changing_app")
    with WorkerProcess(database.dsn, *flags, allowed="changing_app").ready() as worker:
        code.write_text("raise ValueError('half a deploy')\n")
        children = psutil.Process(worker.pid).children()
        (template,) = (each for each in children if "server_script.py" in " ".join(each.cmdline()))
        template.kill()
        worker.wait_for("executor_warning", times=5)
        times = [datetime.fromisoformat(event["ts"]) for event in worker.events if event["event"] == "executor_warning"]
        # What it takes to see that an import fails is the same in each; the pause is twice as long.
        gaps = [(later - sooner).total_seconds() for sooner, later in itertools.pairwise(times)]
        assert gaps[3] - gaps[1] > 0.4
        code.write_text("def version():\n    return 'whole again'\n")
        done = wait_for_status(database, enqueue_version(database), "SUCCESSFUL", seconds=20)
        assert done["return_json"] == ("whole again" if mode == "fork" else "old")  # the pool still has its children
        assert worker.process.poll() is None


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_charges_no_attempt_without_a_forkserver(
    database: Database, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is claimed, what had been claimed is given back; another worker may run it, or this one when its code is
    whole again. A signal ends it meanwhile as at any time."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    code = tmp_path / "changing_app.py"
    whole = "def version():\n    return 'whole'\n"
    code.write_text(whole)
    flags = ("--executor", mode, "--preload", "changing_app")
    with WorkerProcess(database.dsn, *flags, allowed="changing_app").ready() as worker:

        def break_down() -> int:
            """Give a task that must wait."""
            code.write_text("raise ValueError('half a deploy')\n")
            before = worker.seen("executor_warning")
            processes = psutil.Process(worker.pid).children(recursive=True)
            for each in (each for each in processes if "server_script.py" in " ".join(each.cmdline())):
                each.kill()  # children of the pool look like their template
            first = enqueue_path(database, "changing_app.version", max_attempts=1)
            worker.wait_for("executor_warning", times=before + 3)
            second = enqueue_path(database, "changing_app.version", max_attempts=1)
            for result_id in (first, second):
                assert wait_for_status(database, result_id, "READY")["attempts"] == 0
            return second

        waiting = break_down()
        code.write_text(whole)
        assert wait_for_status(database, waiting, "SUCCESSFUL", seconds=20)["return_json"] == "whole"
        waiting = break_down()
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert row(database, waiting)["status"] == "READY"


@pytest.mark.parametrize("mode", MODES)
def test_worker_runs_tasks_if_its_parent_ignored_sigchld(database: Database, mode: str) -> None:
    """What it was started with does not keep it from learning how tasks end."""
    good, bad = enqueue(database, "add", 1, 2), enqueue(database, "die", max_attempts=1)
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        worker = WorkerProcess(database.dsn, "--drain", "--executor", mode)
    finally:
        signal.signal(signal.SIGCHLD, former)
    with worker:
        assert worker.wait(20) == 0
    assert row(database, good)["status"] == "SUCCESSFUL"
    assert row(database, bad)["errors_json"][0]["exit_status"] == 3


@pytest.mark.parametrize("mode", MODES)
def test_worker_raises_its_own_limit_of_open_files_only(database: Database, tmp_path: Path, mode: str) -> None:
    """As far as it may be: its tasks all run at once, and have the limit that programs expect."""
    number = 16
    flags = ("--executor", mode, "--concurrency", str(number))
    with WorkerProcess(database.dsn, *flags, allowed=OTHERS) as worker:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (48, 4096))
        worker.ready()
        for result_id in [enqueue_path(database, f"{OTHERS}.meet", str(tmp_path), number) for _ in range(number)]:
            assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1
        seen = wait_for_status(database, enqueue_path(database, f"{OTHERS}.circumstances"), "SUCCESSFUL")
        assert seen["return_json"]["most_descriptors"] == 48
        assert worker.seen("config_warning") == 0


def test_worker_warns_of_too_few_open_files(database: Database) -> None:
    """Before they are needed."""
    with WorkerProcess(database.dsn, "--concurrency", "100") as worker:
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (256, 256))
        worker.ready()
        (warning,) = worker.logged("config_warning")
        assert "256 open files" in warning["message"]


def test_worker_refuses_unknown_executor_modes(database: Database) -> None:
    """Before anything is touched."""
    with WorkerProcess(database.dsn, "--executor", "thread") as worker:
        assert worker.wait() == 2
