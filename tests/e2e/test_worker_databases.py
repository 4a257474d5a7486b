"""Databases that a worker may meet: another schema, odd defaults, a demoted primary, a clock that runs on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reproq_listen.embedded.server import EmbeddedServer
from tests.support.commands import run_impatiently
from tests.support.database import ROOT, Database, create_database, drop_database, install, wait_until
from tests.support.executing import is_alive
from tests.support.proxy import Proxy
from tests.support.workers import TASKS, WorkerProcess, enqueue, pids_in, row, wait_for_status


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "reproq_listen", *words]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def set_default(database: Database, name: str, value: str) -> None:
    with database.connect() as connection:
        statement = sql.SQL("alter database {} set {} = {}")
        connection.execute(statement.format(sql.Identifier(database.name), sql.Identifier(name), sql.Literal(value)))


@pytest.mark.parametrize(("encoding", "octets"), [("SQL_ASCII", b"\xe9\xff"), ("WIN1252", b"\x81")])
def test_database_that_is_not_utf8_is_refused(server_dsn: str, encoding: str, octets: bytes) -> None:
    """It could hold a row that cannot be sent, and with it no claim succeeds. What comes first says what is needed."""
    database = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", encoding=encoding)
    needed = f"the database has the encoding {encoding}, and reproq-listen needs UTF8"
    try:
        migrated = command("migrate", "--dsn", database.dsn)
        assert (migrated.returncode, needed in migrated.stderr) == (2, True)
        with database.connect() as connection, pytest.raises(psycopg.errors.FeatureNotSupported, match=needed):
            connection.execute(refusal_of_the_first_step())
        install(database)
        with database.connect() as connection:
            connection.execute("set client_encoding to 'SQL_ASCII'")
            spec = b'{"task_path": "a.b", "args": ["' + octets + b'"]}'
            connection.execute(b"insert into task_runs (spec_json, spec_hash) values ('" + spec + b"', 'x')")
        worked = command("worker", "--dsn", database.dsn)
        assert (worked.returncode, needed in worked.stderr) == (2, True)
        assert f"the database has the encoding {encoding}" in command("doctor", "--dsn", database.dsn).stdout
    finally:
        drop_database(server_dsn, database.name)


def refusal_of_the_first_step() -> bytes:
    """What `yoyo apply` runs first."""
    text = (ROOT / "migrations" / "0001_reproq_tables.py").read_text()
    return text.split('REFUSE_ENCODING = """')[1].split('"""')[0].encode()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_worker_ignores_the_default_isolation_of_the_database(database: Database, level: str) -> None:
    """The worker begins its transactions READ COMMITTED, whatever the default."""
    result_id = enqueue(database, "add", 1, 2)
    set_default(database, "default_transaction_isolation", level)
    with WorkerProcess(database.dsn, "--drain") as worker:
        assert worker.wait() == 0
    assert row(database, result_id)["status"] == "SUCCESSFUL"


def test_worker_ignores_date_and_interval_styles_of_the_database(database: Database) -> None:
    """Claims are read as binary values: a style that the driver cannot read loses no claim."""
    result_id = enqueue(database, "add", 1, 2)
    set_default(database, "datestyle", "German, DMY")
    set_default(database, "intervalstyle", "sql_standard")
    with WorkerProcess(database.dsn, "--drain") as worker:
        assert worker.wait() == 0
    with database.connect() as connection:
        ended = connection.execute("select status from task_runs where result_id = %s", [result_id]).fetchone()
    assert ended == ("SUCCESSFUL",)


def test_worker_ends_in_time_while_names_cannot_be_looked_up(database: Database) -> None:
    """A name server that does not answer for 20 seconds, no connection, SIGTERM: the end takes no longer for it."""
    with Proxy(database.dsn) as proxy:
        named = make_conninfo(proxy.dsn, host="localhost")
        worker = WorkerProcess(named, "--shutdown-timeout", "1s", program="tests.support.slow_names_worker").ready()
        with worker:
            worker.signal(signal.SIGUSR1)
            proxy.cut()
            worker.wait_for("database_away")
            time.sleep(1)  # connections are opened again
            began = time.monotonic()
            worker.signal(signal.SIGTERM)
            worker.wait()
            assert time.monotonic() - began < 10


def test_worker_runs_tasks_of_another_schema(empty_database: Database) -> None:
    """`migrate --schema` and `worker --schema` need no search path; the second migrate changes nothing."""
    words = ("migrate", "--dsn", empty_database.dsn, "--schema", "Odd name", "--output", "json")
    outcomes = []
    for _ in range(2):
        done = command(*words)
        assert done.returncode == 0, done.stderr
        outcomes.append({msgspec.json.decode(line)["outcome"] for line in done.stdout.splitlines()})
    assert outcomes == [{"applied"}, {"present"}]
    with empty_database.connect() as connection:
        connection.execute(
            'select "Odd name".reproq_enqueue(p_task_path => %s, p_args => %s)', [f"{TASKS}.add", "[1, 2]"]
        )
        with WorkerProcess(empty_database.dsn, "--schema", "Odd name", "--drain") as worker:
            assert worker.wait() == 0
        found = connection.execute('select status, return_json from "Odd name".task_runs').fetchone()
    assert found == ("SUCCESSFUL", 3)


def test_migrate_dry_run_changes_nothing(empty_database: Database) -> None:
    """It names what is pending and leaves the database as it is."""
    done = command("migrate", "--dsn", empty_database.dsn, "--dry-run")
    assert done.returncode == 0
    assert "pending" in done.stdout
    with empty_database.connect() as connection:
        found = connection.execute(
            "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert found == (0,)


def test_worker_without_rights_names_the_missing_grant(database: Database, server_dsn: str) -> None:
    """Exit 1 at the start, with the statement that grants the right."""
    role = f"{database.name}_nobody"
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        done = command("worker", "--dsn", f"{database.dsn} options='-c role={role}'")
    finally:
        with psycopg.connect(server_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
    assert done.returncode == 1
    assert f"grant reproq_worker to {role}" in done.stderr


def test_worker_waits_until_a_demoted_primary_can_write(own_server: tuple[EmbeddedServer, Database]) -> None:
    """25006 means a dead connection: the worker keeps trying, and goes on by itself."""
    server, database = own_server

    def set_read_only(value: str) -> None:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("set default_transaction_read_only = off")
            admin.execute(sql.SQL("alter system set default_transaction_read_only = {}").format(sql.Literal(value)))
            admin.execute("select pg_reload_conf()")

    result_id = enqueue(database, "add", 1, 1, run_after="2100-01-01T00:00:00Z")
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        set_read_only("on")
        with database.connect() as connection:
            connection.execute("set default_transaction_read_only = off")
            connection.execute("update task_runs set run_after = null where result_id = %s", [result_id])
        worker.wait_for("database_away", sqlstate="25006")
        set_read_only("off")
        wait_for_status(database, result_id, "SUCCESSFUL")


def test_worker_refuses_a_read_only_server(database: Database) -> None:
    """Exit 4 at the start, and the reason is the server's role, not some statement that failed."""
    set_default(database, "default_transaction_read_only", "on")
    done = run_impatiently("worker", "--dsn", database.dsn)
    assert done.returncode == 4
    assert "the server is read-only (a standby, or a demoted primary)" in done.stderr


def test_worker_frozen_past_its_lease_loses_the_task(database: Database, tmp_path: Path) -> None:
    """SIGSTOP past the lease: another worker runs the task, the first one's late result is not accepted."""
    flags = ("--lease-seconds", "2", "--heartbeat-seconds", "0.5", "--grace-seconds", "0.3")
    with WorkerProcess(database.dsn, *flags) as first:
        first.ready()
        result_id = enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 2.5, backoff_seconds=0.1)
        (pid,) = pids_in(tmp_path / "pids")
        first.signal(signal.SIGSTOP)
        with WorkerProcess(database.dsn, *flags, "--reclaim-interval-seconds", "1") as second:
            second.ready()
            pids_in(tmp_path / "pids", 2)
            wait_until(lambda: not is_alive(pid), what="the first attempt has ended")
            first.signal(signal.SIGCONT)
            first.wait_for("lease_lost", task_id=result_id)
            done = wait_for_status(database, result_id, "SUCCESSFUL")
            second.wait_for("task_success", task_id=result_id)
        assert first.seen("task_success") == 0
    assert done["attempts"] == 2
