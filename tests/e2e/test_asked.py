"""What a task asks for by an exception, in every executor."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.database import Database, wait_until
from tests.support.workers import TASKS, WorkerProcess, enqueue, port_of, row, wait_for_status

MODES = ("spawn", "fork", "pool")


@pytest.mark.parametrize("mode", MODES)
def test_asked_for_in_each_executor(database: Database, tmp_path: Path, mode: str) -> None:
    """Retry is charged, Snooze and Throttled are not, Discard is final; the log and the metrics tell them apart."""
    with WorkerProcess(database.dsn, "--executor", mode, "--metrics-addr", "127.0.0.1:0") as worker:
        worker.ready()
        ids = {
            kind: enqueue(database, "ask_once", str(tmp_path / kind), kind, 0.5, max_attempts=2)
            for kind in ("retry", "snooze", "throttle", "discard")
        }
        ended = {
            kind: wait_for_status(database, result_id, "FAILED" if kind == "discard" else "SUCCESSFUL")
            for kind, result_id in ids.items()
        }
        assert {kind: task["attempts"] for kind, task in ended.items()} == {
            "retry": 2,
            "snooze": 1,
            "throttle": 1,
            "discard": 1,
        }
        (error,) = ended["retry"]["errors_json"]
        assert (error["kind"], error["message"], error["exception_class"]) == (
            "retry_asked",
            "the shop is closed",
            "ConnectionError",
        )
        assert "no route" in error["traceback"]
        assert ended["discard"]["last_error"] == "discarded: nothing to do"
        assert ended["snooze"]["errors_json"] == ended["throttle"]["errors_json"] == []
        worker.wait_for("task_retry", task_id=ids["retry"], kind="retry_asked")
        worker.wait_for("task_snoozed", task_id=ids["snooze"])
        worker.wait_for("task_throttled", task_id=ids["throttle"])
        worker.wait_for("task_failed", task_id=ids["discard"], kind="discarded")
        page = urlopen(f"http://127.0.0.1:{port_of(worker)}/metrics").read().decode()
        for status in ("retry", "snoozed", "throttled", "discarded"):
            assert f'reproq_tasks_processed_total{{queue="default",status="{status}"}} 1.0' in page


def test_asked_throttle_holds_for_a_fleet(database: Database, tmp_path: Path) -> None:
    """Four workers, two executors: no start of the path before the time, by the clock of the database; others start."""
    with (
        WorkerProcess(database.dsn, "--executor", "fork") as first,
        WorkerProcess(database.dsn, "--executor", "fork") as second,
        WorkerProcess(database.dsn, "--executor", "pool") as third,
        WorkerProcess(database.dsn, "--executor", "pool") as fourth,
    ):
        for worker in (first, second, third, fourth):
            worker.ready()
        asking = enqueue(database, "ask_once", str(tmp_path / "asked"), "throttle", 8)
        wait_until(lambda: bool(row(database, asking)["last_answer"] == "throttled"), what="the throttle")
        with database.connect() as connection:
            (until,) = connection.execute(
                "select throttled_until from rate_limits where key = %s", [f"task:{TASKS}.ask_once"]
            ).fetchone() or (None,)
        later = [enqueue(database, "ask_once", str(tmp_path / "asked"), "throttle", 0) for _ in range(40)]
        others = [enqueue(database, "add", 1, number) for number in range(40)]
        for result_id in others:
            assert wait_for_status(database, result_id, "SUCCESSFUL")["finished_at"] < until
        for result_id in (asking, *later):
            assert wait_for_status(database, result_id, "SUCCESSFUL")["last_attempted_at"] >= until
