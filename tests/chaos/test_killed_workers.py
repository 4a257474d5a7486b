"""Workers killed without warning, again and again, in each executor mode: nothing of theirs is left running.

.venv/bin/pytest tests/chaos/test_killed_workers.py                     thirty kills
REPROQ_KILLS=102 .venv/bin/pytest tests/chaos/test_killed_workers.py    as `.ci/run` does
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.support.database import Database, wait_until
from tests.support.executing import is_alive
from tests.support.workers import WorkerProcess

ROUNDS = int(os.environ.get("REPROQ_KILLS", "30")) // 3  # of three workers
MODES = ("spawn", "fork", "pool")
FAMILY = "tests.apps.tasks.family"


def enqueue_family(database: Database, queue: str, path: Path) -> None:
    """A task that holds the GIL, with a child in its group and one in a session of its own."""
    task = {"task_path": FAMILY, "args": [str(path)], "queue_name": queue, "dedupe": False}
    with database.connect() as connection:
        connection.execute("select from reproq_enqueue_many(%s)", [json.dumps([task])])


def start_and_kill(database: Database, folder: Path) -> None:
    """One worker of each mode at the same time, on a queue of its own."""
    names = [f"{mode}{kind}" for mode in MODES for kind in ("", ".child", ".escaped")]
    with ExitStack() as stack:
        workers = []
        for mode in MODES:
            queue = f"{mode}-{folder.name}"
            enqueue_family(database, queue, folder / mode)
            flags = ("--executor", mode, "--queues", queue, "--concurrency", "2")
            worker = WorkerProcess(database.dsn, *flags, allowed="tests.apps.tasks")
            workers.append(stack.enter_context(worker))
        wait_until(lambda: all((folder / name).exists() for name in names), what="all run", seconds=30)
        family = {int((folder / name).read_text()) for name in names}
        for worker in workers:
            family |= {child.pid for child in psutil.Process(worker.pid).children(recursive=True)}
        assert all(is_alive(pid) for pid in family)
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in family), what="nothing is left", seconds=2)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_worker_killed_again_and_again_leaves_nothing(database: Database, tmp_path: Path) -> None:
    """SIGKILL with task, child, escaped child and a task that holds the GIL alive: no process of theirs after 2 s."""
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        start_and_kill(database, folder)
