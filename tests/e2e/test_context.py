"""What tasks learn through their context and ask their worker, in every executor, under the role of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from reproq_listen.db.roles import grant
from tests.support.database import Database
from tests.support.logins import login
from tests.support.workers import TASKS, WorkerProcess, row

MODES = ("spawn", "fork", "pool")


@pytest.fixture
def worker_dsn(database: Database) -> Iterator[str]:
    """A login that is a member of reproq_worker only."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, "reproq_worker") as dsn:
        yield dsn


def task(function: str, *args: object, **more: object) -> dict[str, object]:
    return {"task_path": f"{TASKS}.{function}", "args": list(args), **more}


def chord(connection: psycopg.Connection, members: list[dict[str, object]], callback: dict[str, object]) -> int:
    """Enqueue a chord; the id of its callback."""
    row = connection.execute(
        "select result_id from reproq_chord(%s, %s) where ordinal = 0", [Jsonb(members), Jsonb(callback)]
    ).fetchone()
    assert row is not None
    return int(row[0])


def drain(dsn: str, mode: str, seconds: float = 60) -> None:
    with WorkerProcess(dsn, "--drain", "--executor", mode, "--concurrency", "4") as worker:
        assert worker.wait(seconds) == 0
        assert worker.seen("database_refused") == 0


@pytest.mark.parametrize("mode", MODES)
def test_results_of_a_chord(database: Database, worker_dsn: str, mode: str) -> None:
    """All of 1,000, in order; the task has no connection, and its worker no right on a table."""
    members = 1000
    with database.connect() as connection:
        callback = chord(
            connection,
            [task("add", number, 0) for number in range(members)],
            task("sum_results", takes_context=True),
        )
        if mode == "spawn":  # a cold Python for each member would take a minute
            connection.execute(
                """select reproq_complete(array_agg(c.result_id), array_agg(c.lease_token),
                       array_agg(c.spec_json -> 'args' -> 0))
                   from reproq_claim('by hand', '{default}', 1000, '1 minute') c"""
            )
    drain(worker_dsn, mode, 120)
    found = row(database, callback)
    assert (found["status"], found["return_json"]) == (
        "SUCCESSFUL",
        {"count": members, "sum": sum(range(members)), "first": 0, "last": members - 1},
    )


@pytest.mark.parametrize("mode", MODES)
def test_results_of_a_chain_and_of_none(database: Database, worker_dsn: str, mode: str) -> None:
    """The step before; a task that waited for nothing gets an empty list."""
    with database.connect() as connection:
        steps = connection.execute(
            "select result_id from reproq_chain(%s) order by ordinal",
            [Jsonb([task("add", 20, 22), task("sum_results", takes_context=True)])],
        ).fetchall()
        alone = connection.execute(
            "select result_id from reproq_enqueue_many(%s)",
            [Jsonb([task("sizes_of_results", 10, takes_context=True)])],
        ).fetchall()
    drain(worker_dsn, mode)
    assert row(database, steps[1][0])["return_json"] == {"count": 1, "sum": 42, "first": 42, "last": 42}
    assert row(database, alone[0][0])["return_json"] == []


@pytest.mark.parametrize("mode", MODES)
def test_results_come_in_pages_up_to_a_limit(database: Database, worker_dsn: str, mode: str) -> None:
    """5 MiB in 8 results come in pages; beyond the limit a clear error."""
    size = 700_000
    with database.connect() as connection:
        members = [task("text_of", size)] * 8
        whole = chord(connection, members, task("sizes_of_results", 10 << 20, takes_context=True))
        cut = chord(connection, members, task("sizes_of_results", 2 << 20, takes_context=True, max_attempts=1))
    drain(worker_dsn, mode)
    assert row(database, whole)["return_json"] == [size] * 8
    assert row(database, cut)["last_error"].startswith("app_error: the results have more than 2097152 bytes")


@pytest.mark.parametrize("mode", MODES)
def test_context_fields(database: Database, worker_dsn: str, mode: str) -> None:
    """Attempts as the row has them, and when it is stopped."""
    with database.connect() as connection:
        asked = [task("look_at_context", takes_context=True, max_attempts=1, timeout_seconds=100, queue_name="default")]
        ((result_id,),) = connection.execute("select result_id from reproq_enqueue_many(%s)", [Jsonb(asked)]).fetchall()
    drain(worker_dsn, mode)
    seen = row(database, result_id)["return_json"]
    assert 80 < seen.pop("seconds") <= 100
    assert seen == {
        "result_id": result_id,
        "attempt": 1,
        "max_attempts": 1,
        "is_last_attempt": True,
        "queue_name": "default",
        "task_path": f"{TASKS}.look_at_context",
    }
