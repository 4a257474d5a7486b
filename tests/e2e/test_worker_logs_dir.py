"""--logs-dir: a file with what each attempt printed, for its owner only; a full disk costs the file, no more."""

from __future__ import annotations

import asyncio
import gc
import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from reproq_listen.model import CapturedOutput, Outcome
from reproq_listen.worker import attempt_logs
from reproq_listen.worker.attempt_logs import AttemptLogs
from tests.support.database import Database
from tests.support.executing import task
from tests.support.workers import WorkerProcess, enqueue, row, wait_for_status


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_attempt_logs_have_a_file_for_each_attempt(database: Database, tmp_path: Path) -> None:
    """Folder 0700, file 0600, both streams under their headings, the path in logs_uri; failures too."""
    folder = tmp_path / "made" / "logs"
    with WorkerProcess(database.dsn, "--logs-dir", str(folder)).ready():
        good = wait_for_status(database, enqueue(database, "say_on_both", "to stdout", "to stderr"), "SUCCESSFUL")
        bad = wait_for_status(database, enqueue(database, "fail", max_attempts=1), "FAILED")
    assert mode(folder) == 0o700
    path = folder / f"task-{good['result_id']}-attempt-1.log"
    assert good["logs_uri"] == str(path)
    assert mode(path) == 0o600
    assert path.read_text() == "STDOUT:\nto stdout\n\nSTDERR:\nto stderr\n\n"
    assert bad["logs_uri"] == str(folder / f"task-{bad['result_id']}-attempt-1.log")
    assert sorted(os.listdir(folder)) == sorted(Path(r["logs_uri"]).name for r in (good, bad))


def test_attempt_logs_cut_long_output_in_the_middle(database: Database, tmp_path: Path) -> None:
    """Beginning and end are kept, with the number of bytes left out between them."""
    with WorkerProcess(database.dsn, "--logs-dir", str(tmp_path)).ready():
        done = wait_for_status(database, enqueue(database, "flood", 8), "SUCCESSFUL")
    text = Path(done["logs_uri"]).read_bytes()
    assert len(text) < 3 << 20
    assert b" bytes left out ...\n" in text


def test_attempt_logs_without_folder_cost_the_file_only(database: Database, tmp_path: Path) -> None:
    """The task's outcome stands, logs_uri stays empty, and the log has the reason."""
    folder = tmp_path / "logs"
    with WorkerProcess(database.dsn, "--logs-dir", str(folder)).ready() as worker:
        folder.rmdir()
        folder.write_text("a file now")
        done = wait_for_status(database, enqueue(database, "say_on_both", "a", "b"), "SUCCESSFUL")
        assert done["logs_uri"] is None
        worker.wait_for("task_warning", task_id=done["result_id"])
        assert row(database, done["result_id"])["attempts"] == 1


def test_attempt_logs_without_thread_cost_the_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may have used up the limit of processes and threads."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def keep() -> Outcome:
        empty = CapturedOutput(b"", b"", 0)
        outcome = Outcome(result="1", error=None, stdout=empty, stderr=empty)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            return await AttemptLogs(str(tmp_path)).write(task("add", 1, 2), outcome)

    kept = asyncio.run(keep())
    assert (kept.result, kept.logs_uri) == ("1", None)
    assert "new thread" in kept.warnings[0]


def test_attempt_logs_folder_that_hangs_costs_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first limit nobody waits, no output is kept, and the end of the program does not wait either."""
    hang, over = threading.Event(), threading.Event()

    def write(*_: object) -> None:
        hang.set()
        over.wait(300)

    async def keep() -> list[float]:
        logs, loop = AttemptLogs(str(tmp_path)), asyncio.get_running_loop()
        seconds = []
        for number in range(30):
            printed = b"%d" % number * 1000
            output = CapturedOutput(printed, b"", len(printed))
            outcome = Outcome(result="1", error=None, stdout=output, stderr=output)
            began = loop.time()
            written = await logs.write(task("add", 1, number), outcome)
            assert "not within" in written.warnings[0]
            seconds.append(loop.time() - began)
            del outcome, output, written
            gc.collect()
            assert number == 0 or sys.getrefcount(printed) == 2
        over.set()
        await asyncio.sleep(0.2)  # the thread ends its first file, and the limit holds again
        again = CapturedOutput(b"", b"", 0)
        assert (await logs.write(task("add", 1, 99), Outcome("1", None, stdout=again, stderr=again))).warnings == ()
        return seconds

    monkeypatch.setattr(attempt_logs, "_write", write)
    monkeypatch.setattr(attempt_logs, "_WRITE_LIMIT", 0.3)
    began = time.monotonic()
    first, *others = asyncio.run(keep())
    assert (hang.is_set(), first > 0.29, sorted(others)[len(others) // 2] < 0.2) == (True, True, True)
    assert time.monotonic() - began < 100  # not the 300 s for which the folder hangs


def test_attempt_logs_refuse_an_impossible_folder_at_the_start(database: Database, tmp_path: Path) -> None:
    """A file in its place, a folder that takes no file even from root: exit 2, naming the flag, and no worker is
    left in the registry."""
    (tmp_path / "file").write_text("")
    for folder in (str(tmp_path / "file"), "/proc"):
        with WorkerProcess(database.dsn, "--logs-dir", folder) as worker:
            assert worker.wait() == 2
        assert any("--logs-dir" in line for line in worker.plain)
    with database.connect() as connection:
        assert connection.execute("select count(*) from reproq_workers").fetchone() == (0,)
