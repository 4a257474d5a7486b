"""Tasks that end in their own transaction, durable steps, and tasks enqueued with the end, in every executor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from reproq_listen.db.roles import grant
from tests.support.database import Database
from tests.support.logins import login
from tests.support.workers import WorkerProcess, row

MODES = ("spawn", "fork", "pool")
TASKS = "tests.apps.context_tasks"


@pytest.fixture
def worker_dsn(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A login of a worker. The tasks connect as a producer that may write `effects`."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, "reproq_worker") as dsn, login(database, "reproq_producer") as application:
        with database.connect() as connection:
            connection.execute("create table effects (result_id bigint not null, step integer not null default 0)")
            connection.execute("grant insert on effects to reproq_producer")
            connection.execute("grant select, update on task_runs to reproq_producer")  # for the test of a lost lease
        monkeypatch.setenv("DATABASE_URL", application)
        yield dsn


def enqueue(database: Database, function: str, *args: object, **more: object) -> int:
    task = {"task_path": f"{TASKS}.{function}", "args": args, "takes_context": True, "backoff_seconds": 0.1, **more}
    with database.connect() as connection:
        ((result_id,),) = connection.execute(
            "select result_id from reproq_enqueue_many(%s)", [Jsonb([task])]
        ).fetchall()
    return int(result_id)


def drain(dsn: str, mode: str, refusals: int = 0) -> WorkerProcess:
    """`refusals`: calls that the database may refuse."""
    flags = ("--drain", "--executor", mode, "--lease-seconds", "6", "--heartbeat-seconds", "1")
    with WorkerProcess(dsn, *flags, "--reclaim-interval-seconds", "1", allowed=TASKS) as worker:
        assert worker.wait(60) == 0
        assert worker.seen("database_refused") <= refusals
    return worker


def effects(database: Database, result_id: int) -> list[int]:
    with database.connect() as connection:
        found = connection.execute("select step from effects where result_id = %s order by step", [result_id])
        return [step for (step,) in found]


@pytest.mark.parametrize("mode", MODES)
def test_transaction_effect_and_end_are_committed_together(
    database: Database, worker_dsn: str, tmp_path: Path, mode: str
) -> None:
    """Whatever happens inside or after: one effect of a task that succeeded, none of one that did not."""
    ways = ("", "raise inside", "kill inside", "raise after", "kill after", "lost")
    ids = {how: enqueue(database, "complete_inside", how, str(tmp_path / "lost"), max_attempts=2) for how in ways}
    ids["async"] = enqueue(database, "complete_inside_async", max_attempts=1)
    worker = drain(worker_dsn, mode)
    rows = {how: row(database, result_id) for how, result_id in ids.items()}
    for how in ("", "kill inside", "raise after", "kill after", "lost", "async"):
        assert rows[how]["status"] == "SUCCESSFUL", how
        assert effects(database, ids[how]) == [0], how
        assert worker.seen("task_success", task_id=ids[how]) == 1, how
    assert rows[""]["return_json"] == rows["raise after"]["return_json"] == {"attempt": 1}
    assert rows["kill inside"]["return_json"] == {"attempt": 2}
    assert rows["async"]["return_json"] == "async"
    assert rows["kill after"]["attempts"] == 1
    assert worker.seen("task_warning", task_id=ids["raise after"]) == 1
    assert rows["raise inside"]["last_error"] == "app_error: inside"
    assert effects(database, ids["raise inside"]) == []
    assert worker.seen("lease_lost", task_id=ids["lost"]) >= 1  # on a busy machine its next attempt, too


@pytest.mark.parametrize("mode", MODES)
def test_transaction_that_cannot_be_made(database: Database, worker_dsn: str, mode: str) -> None:
    """One that the task has begun, and what is no connection."""
    result_id = enqueue(database, "complete_in_the_wrong_way", max_attempts=1)
    drain(worker_dsn, mode)
    assert row(database, result_id)["return_json"] == ["ValueError", "TypeError"]


@pytest.mark.parametrize("mode", MODES)
def test_steps_run_once(database: Database, worker_dsn: str, tmp_path: Path, mode: str) -> None:
    """A later attempt gets what is stored; async functions too; steps of a transaction leave each effect once."""
    dies = enqueue(database, "three_steps", str(tmp_path / "dies"), 2)
    waits = enqueue(database, "async_steps", str(tmp_path / "waits"))
    writes = enqueue(database, "steps_in_transactions")
    wrong = enqueue(database, "wrong_steps", max_attempts=1)
    drain(worker_dsn, mode)
    assert (row(database, dies)["return_json"], row(database, dies)["attempts"]) == ([1, 2, 3], 2)
    assert (tmp_path / "dies").read_text() == "1\n2\n3\n"
    assert row(database, waits)["return_json"] == [[1, 1], 2, 10]
    assert (tmp_path / "waits").read_text() == "async\nplain\n"
    assert row(database, writes)["return_json"] == 15
    assert effects(database, writes) == [1, 2, 3, 4, 5]
    problems: list[Any] = row(database, wrong)["return_json"]
    assert [text.split(":")[0] for text in problems] == [
        *("ValueError", "ValueError", "TypeError", "ValueError", "RequestError")
    ]
    with database.connect() as connection:
        explained = connection.execute("select detail from reproq_explain(%s) where reason = 'steps_done'", [dies])
        assert explained.fetchall() == [
            ("3 steps are done: step 1 (attempt 1), step 2 (attempt 1), step 3 (attempt 2)",)
        ]
        connection.execute("delete from task_runs where result_id = %s", [dies])
        assert connection.execute("select from reproq_steps where result_id = %s", [dies]).fetchall() == []


@pytest.mark.parametrize("mode", MODES)
def test_enqueue_with_the_end(database: Database, worker_dsn: str, mode: str) -> None:
    """Tasks that follow exist when the task has succeeded, not else; a bad one fails the attempt with the reason."""
    good = enqueue(database, "enqueue_others", 3)
    failing = enqueue(database, "enqueue_others", 3, True, max_attempts=1)
    bad = enqueue(database, "enqueue_badly", max_attempts=1)
    inside = enqueue(database, "enqueue_in_transaction")
    drain(worker_dsn, mode, refusals=1)  # a batch with the bad one is split
    assert row(database, good)["return_json"] == 3
    assert row(database, inside)["return_json"] == "all at once"
    assert row(database, failing)["last_error"] == "app_error: and none of them"
    assert "task_path" in row(database, bad)["last_error"]
    assert row(database, bad)["errors_json"][0]["kind"] == "invalid_result"
    with database.connect() as connection:
        leaves = connection.execute(
            "select return_json from task_runs where task_path = %s and status = 'SUCCESSFUL' order by return_json",
            [f"{TASKS}.leaf"],
        ).fetchall()
    assert leaves == [(0,), (1,), (2,), (7,)]
