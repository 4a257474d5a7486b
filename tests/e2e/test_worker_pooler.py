"""A worker behind a transaction pooler: it leaves nothing in sessions that other applications use next."""

from __future__ import annotations

import psycopg

from tests.e2e.test_doctor import findings, of
from tests.support.database import Database
from tests.support.pooler import Pooler
from tests.support.workers import WorkerProcess, enqueue, wait_for_status


def prepared(pooler: Pooler) -> list[str]:
    with psycopg.connect(pooler.dsn, autocommit=True, prepare_threshold=None) as connection:
        return [row[0] for row in connection.execute("select statement from pg_prepared_statements")]


def test_worker_behind_a_pooler_polls_and_leaves_nothing_in_its_sessions(database: Database) -> None:
    """No LISTEN, which would send other applications our notifications, and no prepared statement."""
    with Pooler(database.dsn) as pooler, WorkerProcess(pooler.dsn, "--poll-max-backoff", "200ms") as worker:
        worker.wait_for("listener_down")
        for number in range(3):
            wait_for_status(database, enqueue(database, "add", 1, number), "SUCCESSFUL")
        assert (pooler.listening(), prepared(pooler)) == ([], [])
        assert [line["remedy"] for line in worker.logged("listener_down")] == [
            "let --listen-dsn reach the same database without a transaction pooler"
        ]


def test_worker_behind_a_pooler_listens_where_it_is_told_to(database: Database) -> None:
    """With a direct --listen-dsn it is woken."""
    with Pooler(database.dsn) as pooler, WorkerProcess(pooler.dsn, "--listen-dsn", database.dsn).ready():
        result_id = enqueue(database, "add", 1, 1)
        wait_for_status(database, result_id, "SUCCESSFUL")
        assert (pooler.listening(), prepared(pooler)) == ([], [])


def test_doctor_behind_a_pooler_does_not_listen_there(database: Database) -> None:
    """It names the remedy; an address that --listen-dsn names is tried."""
    with Pooler(database.dsn) as pooler:
        assert "--listen-dsn" in of("listen", findings(pooler.dsn)).remedy
        assert pooler.listening() == []
