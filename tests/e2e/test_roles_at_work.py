"""Real processes that log in as members of one group only: what they were given is all they need."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from reproq_listen.db.roles import grant
from tests.support.database import Database
from tests.support.logins import login
from tests.support.workers import TASKS, WorkerProcess, pids_in, wait_for_status


def produce(dsn: str, function: str, *args: object, **options: object) -> int:
    task = {"task_path": f"{TASKS}.{function}", "args": list(args), "dedupe": False, **options}
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select result_id from reproq_enqueue_many(%s)", [Jsonb([task])]).fetchone()
    assert row is not None
    return int(row[0])


def test_roles_at_work_each_role_does_its_part(database: Database, tmp_path: Path) -> None:
    """A producer enqueues, a worker runs, retries, fails and reclaims, an operator cancels, an observer sees it."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with (
        login(database, "reproq_worker") as worker_dsn,
        login(database, "reproq_producer") as producer,
        login(database, "reproq_operator") as operator,
        login(database, "reproq_observer") as observer,
        WorkerProcess(worker_dsn, "--reclaim-interval-seconds", "1") as worker,
    ):
        worker.ready()
        added = produce(producer, "add", 1, 2)
        failing = produce(producer, "fail", max_attempts=2, backoff_seconds=0.1)
        note = tmp_path / "pids"
        endless = produce(producer, "note_and_sleep", str(note), 60)
        assert wait_for_status(database, added, "SUCCESSFUL")["return_json"] == 3
        assert wait_for_status(database, failing, "FAILED")["attempts"] == 2
        pids_in(note)
        with psycopg.connect(operator, autocommit=True) as connection:
            assert connection.execute("select reproq_cancel(%s)", [endless]).fetchone() == ("requested",)
        assert "cancelled" in wait_for_status(database, endless, "FAILED")["last_error"]
        with psycopg.connect(observer) as connection:
            assert connection.execute("select count(*) from reproq_live_workers").fetchone() == (1,)
            assert connection.execute("select count(*) from reproq_queues").fetchone() == (0,)
        assert worker.seen("database_refused") == 0
