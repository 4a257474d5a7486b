"""The database's clock is put forward and back: tasks may run again, but no end is accepted twice."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.types.json import Jsonb

from reproq_listen.embedded import binaries as embedded_binaries
from reproq_listen.embedded.server import EmbeddedServer
from tests.chaos.soak import wait_for_the_end
from tests.chaos.soak_checks import check
from tests.chaos.soak_record import HISTORY, TASKS, Soak, read_history
from tests.conftest import TEST_SETTINGS
from tests.support import faketime
from tests.support.database import Database, build, create_database, wait_until
from tests.support.workers import WorkerProcess

STEP = 600  # seconds
COUNT = 40
FLAGS = ("--lease-seconds", "30", "--heartbeat-seconds", "10", "--reclaim-interval-seconds", "1", "--concurrency", "20")


@dataclass
class Stepping:
    """A database whose clock can be put wrong."""

    database: Database
    offsets: Path

    def step(self, seconds: int) -> None:
        self.offsets.write_text(f"{seconds:+d}\n")
        with self.database.connect() as session:

            def is_off() -> bool:
                row = session.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
                assert row is not None
                return abs(float(row[0]) - time.time() - seconds) < 5

            wait_until(is_off, what=f"the clock is off by {seconds} s")


@pytest.fixture
def stepping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepping]:
    with tempfile.TemporaryDirectory(prefix="reproq-", dir="/tmp") as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        offsets = Path(folder) / "offsets"
        offsets.write_text("+0\n")
        fake = faketime.environment(offsets)
        true = embedded_binaries._environment
        monkeypatch.setattr(embedded_binaries, "_environment", lambda: {**true(), **fake})
        settings = {**TEST_SETTINGS, "synchronous_commit": "on", "max_connections": "50"}
        server = stack.enter_context(EmbeddedServer(settings=settings))
        database = create_database(server.dsn(), "reproq")
        build(database)
        yield Stepping(database, offsets)


@pytest.mark.chaos
def test_worker_clock_step_of_the_database_causes_at_most_repetitions(stepping: Stepping, tmp_path: Path) -> None:
    """Ten minutes forward, back, and right again, while tasks run on two workers."""
    database, soak = stepping.database, Soak(tmp_path / "journals")
    soak.folder.mkdir()
    with ExitStack() as stack:
        with database.connect() as session:
            session.execute(HISTORY)
        soak.workers += [stack.enter_context(WorkerProcess(database.dsn, *FLAGS, allowed=TASKS)) for _ in range(2)]
        for worker in soak.workers:
            worker.ready()
        for step in (0, STEP, -STEP, 0):
            stepping.step(step)
            enqueue_some(soak, database)
            time.sleep(1.2)  # longer than between two looks for expired leases, and shorter than a task
        wait_for_the_end(database)
        soak.history = read_history(database)
    found = check(soak, exclusion=False)
    assert not found.violations
    assert found.numbers["reclaimed"] > 0, "the step has expired no lease"
    ends = [row["new_status"] for row in soak.history if row["new_status"] in ("SUCCESSFUL", "FAILED")]
    assert ends == ["SUCCESSFUL"] * COUNT


def enqueue_some(soak: Soak, database: Database) -> None:
    tasks = [
        {
            "task_path": f"{TASKS}.work",
            "args": [str(soak.folder), 2.5, number],
            "max_attempts": 9,
            "backoff_seconds": 0,
            "takes_context": True,
        }
        for number in range(len(soak.asked), len(soak.asked) + COUNT // 4)
    ]
    soak.asked += tasks
    with database.connect() as session:
        rows = session.execute("select result_id from reproq_enqueue_many(%s) order by ordinal", [Jsonb(tasks)])
        soak.acknowledged |= {row[0]: task for row, task in zip(rows.fetchall(), tasks, strict=True)}
