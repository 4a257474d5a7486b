"""The primary dies and its standby takes over: workers move by themselves; what was accepted stays so."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from reproq_listen.embedded import binaries as embedded_binaries
from reproq_listen.embedded.server import EmbeddedServer
from tests.conftest import TEST_SETTINGS
from tests.support.database import Database, build, create_database, wait_until
from tests.support.executing import is_alive
from tests.support.workers import WorkerProcess, enqueue, pids_in, row, wait_for_status

MOVE_LIMIT = 10.0  # seconds


@dataclass
class Pair:
    """A primary with a synchronous standby. `database` is the one of a client that knows both."""

    primary: EmbeddedServer
    standby: EmbeddedServer
    database: Database

    def on_standby(self) -> psycopg.Connection:
        return psycopg.connect(self.standby.dsn("reproq"), autocommit=True)

    def promote(self) -> None:
        with self.on_standby() as session:
            session.execute("select pg_promote()")


@pytest.fixture
def pair() -> Iterator[Pair]:
    settings = {**TEST_SETTINGS, "synchronous_commit": "on", "max_connections": "50", "wal_level": "replica"}
    home = Path(tempfile.mkdtemp(prefix="reproq-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        primary = stack.enter_context(EmbeddedServer(settings=settings))
        build(create_database(primary.dsn(), "reproq"))
        programs = embedded_binaries.find()
        home.chmod(0o711)
        (home / "start.lock").touch()
        data = home / "data"
        data.mkdir()
        programs.own(data)
        programs.run(
            *("pg_basebackup", "-D", str(data), "-h", str(primary.socket_folder), "-U", "postgres"),
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            cwd=home,
        )
        standby = stack.enter_context(EmbeddedServer(home, settings))
        with psycopg.connect(primary.dsn(), autocommit=True) as session:
            session.execute("alter system set synchronous_standby_names = '*'")
            session.execute("select pg_reload_conf()")
            wait_until(lambda: _is_synchronous(session), what="the standby follows")
        hosts = f"host={primary.socket_folder},{standby.socket_folder} user=postgres dbname=reproq"
        yield Pair(primary, standby, Database("reproq", f"{hosts} target_session_attrs=read-write"))


def _is_synchronous(session: psycopg.Connection) -> bool:
    return session.execute("select from pg_stat_replication where sync_state = 'sync'").fetchone() is not None


@pytest.mark.chaos
def test_worker_moves_to_the_promoted_standby(pair: Pair, tmp_path: Path) -> None:
    """Within 10 s, with the task that runs meanwhile; each result that was acknowledged to a worker is there, once."""
    database = pair.database
    with WorkerProcess(database.dsn, "--lease-seconds", "20", "--heartbeat-seconds", "5") as worker:
        worker.ready()
        running = enqueue(database, "note_and_sleep", str(tmp_path / "running"), 6)
        wait_for_status(database, running, "RUNNING")
        many = [enqueue(database, "note_and_sleep", str(tmp_path / str(number)), 0.02) for number in range(100)]
        wait_until(lambda: worker.seen("task_success") >= 20, what="some are done")
        pair.primary.stop("immediate")
        acknowledged = {event["task_id"] for event in list(worker.events) if event.get("event") == "task_success"}
        pair.promote()
        moved = time.monotonic()
        probe = enqueue(database, "add", 1, 1)
        wait_for_status(database, probe, "SUCCESSFUL", seconds=MOVE_LIMIT)
        assert time.monotonic() - moved < MOVE_LIMIT
        for result_id in acknowledged:
            assert row(database, result_id)["status"] == "SUCCESSFUL"
        for result_id in many:
            assert wait_for_status(database, result_id, "SUCCESSFUL")["attempts"] == 1
        assert wait_for_status(database, running, "SUCCESSFUL")["attempts"] == 1
        worker.wait_for("listen_verified", times=2, seconds=15)
        assert worker.seen("lease_not_renewed") == 0
    executed = sum((tmp_path / str(number)).read_text().count("\n") for number in range(100))
    assert executed == 100
    with database.connect() as session:
        assert session.execute("select pg_is_in_recovery()").fetchone() == (False,)


@pytest.mark.chaos
def test_worker_stops_a_claim_that_the_standby_never_had(pair: Pair, tmp_path: Path) -> None:
    """Without synchronous replication a failover forgets claims: the task runs again, and one end is accepted."""
    database, path = pair.database, tmp_path / "pids"
    flags = ("--lease-seconds", "10", "--heartbeat-seconds", "1", "--grace-seconds", "0.5", "--concurrency", "1")
    with WorkerProcess(database.dsn, *flags) as worker:
        worker.ready()
        with psycopg.connect(pair.primary.dsn(), autocommit=True) as session:
            session.execute("alter system set synchronous_standby_names = ''")
            session.execute("select pg_reload_conf()")
            wait_until(lambda: not _is_synchronous(session), what="the standby is asynchronous")
        with database.connect() as session:
            session.execute("select reproq_pause('default')")
        result_id = enqueue(database, "note_and_sleep", str(path), 8)
        with pair.on_standby() as session:
            wait_until(
                lambda: (
                    session.execute("select from task_runs where result_id = %s", [result_id]).fetchone() is not None
                ),
                what="the standby has the task",
            )
            session.execute("alter system set primary_conninfo = ''")
            session.execute("select pg_reload_conf()")
            wait_until(
                lambda: session.execute("select from pg_stat_wal_receiver").fetchone() is None, what="it is cut off"
            )
        with database.connect() as session:
            session.execute("select reproq_resume('default')")
        (stale,) = pids_in(path)
        claimed = row(database, result_id)
        pair.primary.stop("immediate")
        pair.promote()
        with database.connect() as session:
            # The standby remembers the pause; and by now the worker has asked for the lease that this side never gave.
            worker.wait_for("lease_lost", task_id=result_id)
            wait_until(lambda: not is_alive(stale), what="the attempt unknown to this database is stopped", seconds=3)
            session.execute("select reproq_resume('default')")
            late = session.execute(
                "select answer from reproq_complete(array[%s::bigint], array[%s::uuid], array['1'::jsonb])",
                [result_id, claimed["lease_token"]],
            ).fetchone()
        assert late == ("lost",)
        done = wait_for_status(database, result_id, "SUCCESSFUL", seconds=20)
        assert (done["attempts"], done["return_json"]) == (1, "slept")
        assert done["last_token"] != claimed["lease_token"]
        assert len(pids_in(path)) == 2
