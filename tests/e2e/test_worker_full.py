"""A worker with more tasks than slots: each end of a task and the claim for its slot are one call."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database, wait_until
from tests.support.proxy import Proxy
from tests.support.workers import WorkerProcess, enqueue, pids_in

TASKS = 40
SHORT_LEASE = ("--lease-seconds", "3", "--heartbeat-seconds", "1", "--grace-seconds", "0.3")


def calls_of(proxy: Proxy) -> Counter[str]:
    """How often each function was called."""
    names = (re.search(rb"from reproq_(\w+)\(", statement) for statement in proxy.executed)
    return Counter(name[1].decode() for name in names if name)


@pytest.mark.parametrize("mode", ["fork", "pool"])
def test_worker_that_is_full_completes_and_claims_in_one_call(database: Database, mode: str, tmp_path: Path) -> None:
    """One call and one commit for a task, not two; a short queue's end and the start cost some more."""
    for number in range(TASKS):
        enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 0.05 + number % 7 / 100)
    flags = ("--executor", mode, "--concurrency", "2", "--drain")
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn, *flags) as worker:
        assert worker.wait() == 0
    calls = calls_of(proxy)
    assert calls["claim"] + calls["complete"] + calls["complete_and_claim"] <= TASKS * 1.5, calls
    assert calls["complete_and_claim"] >= TASKS / 3, calls
    with database.connect() as connection:
        ended = connection.execute("select status, attempts, count(*) from task_runs group by 1, 2").fetchall()
    assert ended == [("SUCCESSFUL", 1, TASKS)]


def test_worker_loses_nothing_when_the_reply_of_such_a_call_is_cut(database: Database, tmp_path: Path) -> None:
    """The completion is repeated; what the call had claimed comes back uncharged and runs once."""
    number = 8
    ids = [enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 0.1) for _ in range(number)]
    with Proxy(database.dsn) as proxy:
        proxy.cut_reply_to = b"reproq_complete_and_claim"
        with WorkerProcess(proxy.dsn, "--concurrency", "1", *SHORT_LEASE) as worker, database.connect() as connection:
            wait_until(lambda: ended(connection) == number, what="all have run", seconds=30)
            assert worker.seen("lease_lost") == 0
        assert proxy.cuts == 1
    assert len(pids_in(tmp_path / "pids", number)) == number
    with database.connect() as connection:
        rows = connection.execute("select result_id, attempts, lost_count from task_runs order by 1").fetchall()
    assert rows == [(result_id, 1, 0) for result_id in sorted(ids)]


def ended(connection: psycopg.Connection) -> int:
    found = connection.execute("select count(*) from task_runs where status = 'SUCCESSFUL'").fetchone()
    assert found is not None
    return int(found[0])
