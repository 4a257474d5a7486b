"""Faults between worker and database: restarts, silence, lost replies. No task lost, none finished twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database as Session
from reproq_listen.db.database import prepare_session
from reproq_listen.db.worker_queries import Answer, ClaimRequest, WorkerQueries
from reproq_listen.embedded.server import EmbeddedServer
from reproq_listen.logs.json_lines import set_up
from reproq_listen.model import ClaimedTask
from reproq_listen.worker.result_writer import AttemptResult, ResultKind, ResultWriter
from tests.support.database import Database, wait_until
from tests.support.executing import is_alive
from tests.support.proxy import Proxy
from tests.support.workers import WorkerProcess, enqueue, pids_in, row, wait_for_status

SHORT_LEASE = ("--lease-seconds", "4", "--heartbeat-seconds", "1", "--grace-seconds", "0.5")


def test_worker_survives_a_restart_of_postgres(own_server: tuple[EmbeddedServer, Database], tmp_path: Path) -> None:
    """A running task is not killed, no attempt is burnt, its result is stored, and claims resume within 5 s."""
    server, database = own_server
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        running = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 1.5)
        pids_in(tmp_path / "pids")
        server.stop("fast")
        server.start()
        server.stop("immediate")
        server.start()
        back = time.monotonic()
        done = wait_for_status(database, running, "SUCCESSFUL")
        assert (done["attempts"], done["return_json"]) == (1, "slept")
        wait_for_status(database, enqueue(database, "add", 1, 1), "SUCCESSFUL", seconds=5)
        assert time.monotonic() - back < 8
        worker.wait_for("listen_verified", times=2)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_result_writer_keeps_a_result_during_an_outage(
    own_server: tuple[EmbeddedServer, Database], tmp_path: Path
) -> None:
    """A task that ends while the database is away is stored once it is back, by the one execution there was."""
    server, database = own_server
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 0.3)
        (pid,) = pids_in(tmp_path / "pids")
        server.stop("immediate")
        wait_until(lambda: not is_alive(pid), what="the task has ended during the outage")
        worker.wait_for("database_away")
        server.start()
        assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1
        assert len(pids_in(tmp_path / "pids")) == 1


@pytest.mark.parametrize("mode", ["spawn", "fork", "pool"])
def test_leases_stop_a_task_before_its_lease_ends(database: Database, tmp_path: Path, mode: str) -> None:
    """Self-fencing: without a renewal the child is dead before it ends, and the attempt is charged."""
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn, *SHORT_LEASE, "--executor", mode) as worker:
        worker.ready()
        result_id = enqueue(database, "note_and_resist", str(tmp_path / "pids"), 60, backoff_seconds=30)
        (pid,) = pids_in(tmp_path / "pids")
        proxy.silent = True
        wait_until(lambda: not is_alive(pid), what="the child is stopped")
        with database.connect() as connection:
            left = connection.execute(
                "select leased_until - clock_timestamp() from task_runs where result_id = %s and status = 'RUNNING'",
                [result_id],
            ).fetchone()
        assert left is not None
        assert left[0].total_seconds() > 0
        worker.wait_for("lease_not_renewed", task_id=result_id)
        proxy.silent = False
        done = wait_for_status(database, result_id, "READY")
    assert done["attempts"] == 1
    assert done["errors_json"][-1]["kind"] == "lease_expiry"


def test_heartbeat_survives_a_short_silence_of_the_database(database: Database, tmp_path: Path) -> None:
    """A heartbeat that fails is repeated; the task goes on as long as its lease holds."""
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn, *SHORT_LEASE) as worker:
        worker.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 4)
        pids_in(tmp_path / "pids")
        proxy.silent = True
        worker.wait_for("database_away", connection="lease")
        proxy.silent = False
        assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1
        assert worker.seen("lease_not_renewed") == 0


def test_result_writer_repeats_a_call_whose_reply_was_lost(database: Database, tmp_path: Path) -> None:
    """The call is repeated under the same token; the database knows it already. One execution."""
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn) as worker:
        worker.ready()
        proxy.cut_reply_to = b"reproq_complete"
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 0)
        worker.wait_for("task_success", task_id=result_id)
        assert proxy.cuts == 1
        assert row(database, result_id)["attempts"] == 1
        assert len(pids_in(tmp_path / "pids")) == 1


def test_heartbeat_returns_tasks_of_a_lost_claim_reply_uncharged(database: Database) -> None:
    """Tasks of the lost reply are returned within half a lease, and run with their first attempt."""
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn, *SHORT_LEASE) as worker:
        worker.ready()
        proxy.cut_reply_to = b"reproq_claim"
        result_id = enqueue(database, "add", 1, 1)
        wait_until(lambda: proxy.cuts == 1, what="the reply is cut")
        done = wait_for_status(database, result_id, "SUCCESSFUL")
    assert (done["attempts"], done["lost_count"]) == (1, 0)


def test_worker_is_not_blocked_by_an_unread_log(database: Database, tmp_path: Path) -> None:
    """Its pipe is full: tasks run on, leases are renewed, a signal ends it. Once it is read again the log is complete,
    except for the number of lines that it reports as dropped."""

    def run_many(number: int) -> None:
        for result_id in [enqueue(database, "say_on_both", "\x01" * 4000, "\x01" * 4000) for _ in range(number)]:
            wait_for_status(database, result_id, "SUCCESSFUL", seconds=30)

    with WorkerProcess(database.dsn, *SHORT_LEASE).ready() as worker:
        long = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 60, max_attempts=1)
        pids_in(tmp_path / "pids")
        with worker.reading:
            run_many(70)
            renewed = row(database, long)["leased_until"]
            wait_until(lambda: row(database, long)["leased_until"] > renewed, what="the lease is renewed")
        worker.wait_for("log_dropped")
        (dropped,) = worker.logged("log_dropped")
        written = worker.seen("task_started") + worker.seen("task_output") - 1  # of those for each task
        assert written < 3 * 70 <= written + dropped["count"]
        assert worker.plain == []
        assert dropped["worker_id"] == worker.logged("worker_started")[0]["worker_id"]
        with worker.reading:
            run_many(20)
            worker.signal(signal.SIGQUIT)
            assert worker.wait() == 0
    assert (row(database, long)["status"], row(database, long)["attempts"]) == ("READY", 0)


def test_result_writer_replaces_an_unstorable_result_and_stores_the_others(database: Database) -> None:
    """A refused batch is split until the unstorable one is alone; it ends as invalid_result, the others as they are."""
    good = [enqueue(database, "say", "x") for _ in range(6)]
    settled: dict[int, str] = {}

    def note(answers: Sequence[tuple[AttemptResult, Answer]]) -> None:
        settled.update({ending.task.result_id: answer.answer for ending, answer in answers})

    async def work() -> None:
        log = set_up(level=60)
        session = Session(Connection(database.dsn, "control", log, prepare_session), None)
        calls = WorkerQueries(session)
        incarnation = await calls.register("w", "h", 10, ["default"], "0", ["*"])
        tasks = await calls.claim(ClaimRequest("w", ["default"], 10, timedelta(seconds=60), 60.0, None, incarnation))
        result_writer = ResultWriter(calls, note, log)
        for task in tasks:
            result_writer.put(
                AttemptResult(task, ResultKind.COMPLETE, '"\\u0000"' if task.result_id == good[3] else '"fine"')
            )
        foreign: ClaimedTask = msgspec.structs.replace(tasks[0], result_id=10**9, lease_token=uuid4())
        result_writer.put(AttemptResult(foreign, ResultKind.COMPLETE, "1"))
        runner = asyncio.create_task(result_writer.run())
        assert await result_writer.flushed(10)
        runner.cancel()
        await session.close()

    asyncio.run(work())
    assert settled == {**dict.fromkeys(good, "ok"), good[3]: "failed", 10**9: "lost"}
    assert row(database, good[3])["errors_json"][0]["kind"] == "invalid_result"
    assert row(database, good[4])["return_json"] == "fine"
