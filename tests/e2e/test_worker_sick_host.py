"""A host on which no process can be started for tasks: the tasks are given back, and the worker waits, and says so.

What fails before a task's own code can run is not the task's failure."""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import urllib.error
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.database import Database, wait_until
from tests.support.pages import metric
from tests.support.workers import WorkerProcess, enqueue, port_of, row, wait_for_status

ADDRESS = ("--metrics-addr", "127.0.0.1:0")


def leave_descriptors(worker: WorkerProcess, free: int) -> None:
    """The worker can open only this number of descriptors more."""
    used = max(map(int, os.listdir(f"/proc/{worker.pid}/fd")))
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (used + 1 + free, hard))


def page(port: int, path: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            body: bytes = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    return body


def failures(port: int) -> dict[str, Any]:
    """What /readyz names."""
    found: dict[str, Any] = json.loads(page(port, "/readyz"))["failures"]
    return found


@pytest.mark.parametrize("mode", ["spawn", "fork", "pool"])
def test_worker_without_descriptors_fails_no_task(database: Database, mode: str) -> None:
    """A healthy worker ends all of them, each with its only attempt; the sick one takes few, and gives them back."""
    flags = ("--executor", mode, "--concurrency", "4")
    with WorkerProcess(database.dsn, *flags).ready() as sick:
        leave_descriptors(sick, 2)
        ids = [enqueue(database, "add", number, 1, max_attempts=1) for number in range(60)]
        if mode != "pool":  # which goes on with the children that it has
            sick.wait_for("executor_paused", seconds=10)
        with WorkerProcess(database.dsn, "--executor", "fork", "--drain"):
            for result_id in ids:
                assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1
        assert sick.seen("task_infra_error") == 0


@pytest.mark.parametrize("mode", ["spawn", "fork"])
def test_worker_pauses_grow_and_end_with_the_first_success(database: Database, mode: str) -> None:
    """Nothing is claimed meanwhile; the task keeps its attempt and runs when the host is well again."""
    with WorkerProcess(database.dsn, "--executor", mode, "--concurrency", "1").ready() as worker:
        _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
        leave_descriptors(worker, 0)
        waiting = [enqueue(database, "add", number, 1, max_attempts=1) for number in range(20)]
        worker.wait_for("executor_paused", times=6)  # the first may be of a child that was ready
        last = worker.logged("executor_paused")[2:6]
        pauses = [float(event["retry_in"]) for event in last]
        assert all(later > 1.4 * sooner for sooner, later in itertools.pairwise(pauses))
        times = [datetime.fromisoformat(event["ts"]) for event in last]
        assert (times[3] - times[2]).total_seconds() > 0.9 * pauses[2]
        assert worker.seen("task_released") <= worker.seen("executor_paused") + 2
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        for result_id in waiting:
            assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1


def test_worker_without_python_says_so_and_goes_on_when_it_is_back(database: Database, tmp_path: Path) -> None:
    """In the log, on /readyz, and as a metric."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    flags = ("--executor", "spawn", "--python-bin", str(python), *ADDRESS)
    with WorkerProcess(database.dsn, *flags).ready() as worker:
        port = port_of(worker)
        wait_until(lambda: failures(port) == {}, what="it is ready")
        python.unlink()
        waiting = enqueue(database, "add", 1, 2, max_attempts=1)
        worker.wait_for("executor_paused", times=3)
        assert "No such file" in worker.logged("executor_paused")[0]["message"]
        wait_until(lambda: "No such file" in failures(port).get("executor", ""), what="it is not ready")
        assert (metric(page(port, "/metrics"), "reproq_executor_pauses_total") or 0) >= 3
        assert "no process could be started" in worker.logged("task_released", task_id=waiting)[0]["reason"]
        python.symlink_to(sys.executable)
        assert wait_for_status(database, waiting, "SUCCESSFUL")["attempts"] == 1
        wait_until(lambda: failures(port) == {}, what="it is ready again")
        assert metric(page(port, "/metrics"), "reproq_executor_paused") == 0


@pytest.mark.parametrize("mode", ["spawn", "fork"])
def test_worker_without_room_for_payloads_fails_no_task(database: Database, mode: str) -> None:
    """Payload mode file, and no file can be written."""
    with WorkerProcess(database.dsn, "--executor", mode, "--payload-mode", "file").ready() as worker:
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        waiting = enqueue(database, "add", 1, 2, max_attempts=1)
        worker.wait_for("executor_paused", times=2)
        assert row(database, waiting)["attempts"] <= 1
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert wait_for_status(database, waiting, "SUCCESSFUL")["attempts"] == 1


def test_worker_fails_the_task_whose_payload_is_too_large_for_arguments(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payload mode inline: that is the task's failure, and no pause follows, so its neighbours run."""
    monkeypatch.setenv("REPROQ_DEV", "1")
    flags = ("--executor", "spawn", "--payload-mode", "inline", "--drain")
    too_large = enqueue(database, "add", "x" * 200_000, "y", max_attempts=1)
    others = [enqueue(database, "add", number, 1, max_attempts=1) for number in range(4)]
    with WorkerProcess(database.dsn, *flags) as worker:
        assert worker.wait() == 0
        assert worker.seen("executor_paused") == 0
    (error,) = row(database, too_large)["errors_json"]
    assert (error["kind"], "--payload-mode stdin" in error["message"]) == ("payload_too_large", True)
    assert [row(database, result_id)["status"] for result_id in others] == ["SUCCESSFUL"] * 4
