"""Every fault that doctor knows is made on a real server and found; a remedy that is a statement mends it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reproq_listen.db.migrations import migrate, roll_back
from reproq_listen.db.roles import grant
from reproq_listen.doctor.examination import DoctorSettings, examine
from reproq_listen.doctor.findings import Finding, Level
from reproq_listen.logs.json_lines import set_up
from tests.e2e.test_docker_database import psql_folder
from tests.support.database import ROOT, Database
from tests.support.logins import login
from tests.support.proxy import Proxy


def settings(dsn: str, **changes: Any) -> DoctorSettings:
    asked = DoctorSettings(
        dsn=dsn,
        listen_dsn=None,
        schema=None,
        python_bin=sys.executable,
        executor_module="reproq_listen.executor",
        allowed_task_modules=("tests.apps.worker_tasks",),
        program="reproq-listen",
    )
    return replace(asked, **changes)


def findings(dsn: str, **changes: Any) -> list[Finding]:
    """Examine as the command does."""
    found: list[Finding] = []
    asyncio.run(examine(settings(dsn, **changes), found.append, set_up(stream=io.StringIO())))
    return found


def of(check: str, found: list[Finding]) -> Finding:
    """The first finding of a check, the worst first."""
    return min(
        (finding for finding in found if finding.check == check),
        key=lambda finding: [Level.ERROR, Level.WARNING, Level.OK].index(finding.level),
    )


def bad(found: list[Finding]) -> set[str]:
    """The checks with an error or a warning, without the two that every test server has."""
    of_tests = {"owner", "durability"}  # tests connect as a superuser, to a server that need not survive a crash
    return {finding.check for finding in found if finding.level is not Level.OK} - of_tests


def test_doctor_healthy_database_has_no_findings(database: Database) -> None:
    """Every check is made and is ok."""
    found = findings(database.dsn)
    assert bad(found) == set()
    assert {finding.check for finding in found} == {
        *("connection", "version", "encoding", "writable", "durability", "notify", "clock", "notification_queue"),
        *(
            "array_nulls",
            "row_security",
            "oldest_transaction",
            "prepared_transaction",
            "listen",
            "schema_is_closed",
            "owner",
            "contract",
        ),
        *("migrations", "functions", "triggers", "views", "indexes", "autovacuum", "grants", "public_rights"),
        *("executor", "allow_list"),
    }
    assert all(finding.why and finding.remedy for finding in found if finding.level is not Level.OK)


FAULTS = {
    "functions": "drop function reproq_explain(bigint)",
    "indexes": "drop index task_runs_one_running_per_lock_key",
    "triggers": "drop trigger reproq_after_foreign_insert on task_runs",
    "views": "drop view reproq_queues",
    "autovacuum": "alter table task_runs set (autovacuum_enabled = off)",
    "public_rights": "grant execute on function reproq_claim to public",
    "schema_is_closed": "grant create on schema public to public",
    "contract": (
        "create or replace function reproq_contract(out oldest integer, out newest integer) language sql"
        " immutable as 'select 99, 99'"
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_doctor_fault_is_found(database: Database, check: str) -> None:
    """A fault made on purpose is named by its own check, with a remedy."""
    with database.connect() as connection:
        connection.execute(FAULTS[check].encode())
    found = findings(database.dsn)
    assert of(check, found).level is Level.ERROR
    assert bad(found) - {"functions"} == {check} - {"functions"}
    assert of(check, found).remedy


MENDED = (
    ("indexes", "update pg_index set indisvalid = false where indexrelid = 'task_runs_claim'::regclass"),
    ("indexes", "drop index task_runs_claim"),
    ("indexes", "drop index task_runs_one_running_per_lock_key"),
    ("triggers", "alter table task_runs disable trigger reproq_after_foreign_insert"),
    (
        "triggers",
        "drop trigger reproq_after_foreign_insert on task_runs;"
        " drop trigger reproq_control_notify on reproq_queue_controls",
    ),
    ("views", "drop view reproq_live_workers, reproq_queues cascade"),
    ("functions", "drop function reproq_explain(bigint)"),
    (
        "functions",
        "update pg_proc set prosrc = prosrc || ' -- x' where proname in ('_reproq_requeue', '_reproq_notify')",
    ),
    ("functions", "alter function reproq_cancel(bigint) security invoker"),
    ("functions", "alter function reproq_cancel(bigint) reset search_path"),
    ("functions", "alter function reproq_cancel(bigint) set search_path = 'public'"),
    ("row_security", "alter table task_runs force row level security"),
    ("autovacuum", "alter table task_runs set (autovacuum_enabled = false)"),
    ("autovacuum", "alter table task_runs set (autovacuum_enabled = 0)"),
    ("autovacuum", "alter table task_runs set (autovacuum_enabled = No)"),
    ("public_rights", "grant execute on function reproq_claim to public"),
    ("schema_is_closed", "grant create on schema public to public"),
)


@pytest.mark.parametrize(("check", "fault"), MENDED)
def test_doctor_remedy_mends_its_fault(database: Database, check: str, fault: str) -> None:
    """A remedy that is a statement or a command can be pasted as it is, and after it the finding is gone."""
    with database.connect() as connection:
        connection.execute(fault.encode())
        finding = of(check, findings(database.dsn))
        assert finding.level is not Level.OK
        if finding.remedy.startswith(("psql ", "reproq-listen ")):
            paste(finding.remedy)
        else:
            connection.execute(finding.remedy.encode())
    assert bad(findings(database.dsn)) == set()


def paste(command: str) -> None:
    """Run a remedy in a shell that finds psql and this checkout's reproq-listen."""
    folders = (psql_folder(), Path(sys.executable).parent)
    path = ":".join([*map(str, folders), os.environ["PATH"]])
    subprocess.run(["sh", "-c", command], check=True, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True)


def test_doctor_remedy_of_a_function_in_another_schema(empty_database: Database) -> None:
    """Names that need quotes; the roles get their rights back with the function."""
    schema = "It's ours"
    migrate(empty_database.dsn, schema=schema, report=lambda _: None)
    grant(empty_database.dsn, schema=schema, setting="--dsn", django=False, dry_run=False)
    with empty_database.connect() as connection:
        connection.execute('drop function "It\'s ours".reproq_heartbeat')
        paste(of("functions", findings(empty_database.dsn, schema=schema)).remedy)
        assert bad(findings(empty_database.dsn, schema=schema)) == set()
        may = connection.execute(
            "select has_function_privilege('reproq_worker', p.oid, 'execute') from pg_proc p "
            "where p.proname = 'reproq_heartbeat'"
        ).fetchone()
    assert may == (True,)


def test_while_migrations_are_pending_they_are_the_remedy(database: Database) -> None:
    """Objects that a step will create are not created by hand."""
    roll_back(database.dsn, steps=1, report=lambda _: None)
    with database.connect() as connection:
        connection.execute("drop index task_runs_claim; drop view reproq_queues")
    found = findings(database.dsn)
    for check in ("indexes", "views"):
        assert of(check, found).remedy.startswith("reproq-listen migrate --dsn '")


def test_doctor_changed_function_is_found(database: Database) -> None:
    """Another body under the same name is drift."""
    with database.connect() as connection:
        connection.execute("update pg_proc set prosrc = prosrc || ' -- x' where proname = '_reproq_requeue'")
    finding = of("functions", findings(database.dsn))
    assert finding.level is Level.WARNING
    assert "_reproq_requeue" in finding.what


def test_settings_of_a_role_are_found(database: Database) -> None:
    """Settings of a role or a database that a worker would get."""
    with login(database, options="superuser") as dsn:
        role = str(conninfo_to_dict(dsn)["user"])
        with database.connect() as connection:
            for setting in (
                *("default_transaction_read_only = on", "reproq.notify = off", "synchronous_commit = off"),
                "array_nulls = off",
            ):
                connection.execute(f"alter role {role} set {setting}".encode())
        found = findings(dsn)
        assert of("writable", found).level is Level.ERROR
        assert of("notify", found).level is Level.WARNING
        assert of("durability", found).level is Level.WARNING
        with database.connect() as connection:
            for check in ("notify", "durability", "array_nulls"):
                connection.execute(of(check, found).remedy.encode())
            connection.execute(of("writable", found).remedy.encode())
        after = findings(dsn)
        checks = ("writable", "notify", "durability", "array_nulls")
        assert [of(check, after).level for check in checks] == [Level.OK] * 4


def test_pending_migrations_are_found(database: Database) -> None:
    """A step that is not applied is an error."""
    (undone,) = roll_back(database.dsn, steps=1, report=lambda _: None)
    finding = of("migrations", findings(database.dsn))
    assert finding.level is Level.ERROR
    assert undone.step in finding.what
    assert finding.remedy.startswith("reproq-listen migrate --dsn '")


def test_doctor_missing_schema_is_found(empty_database: Database) -> None:
    """Without our functions there is one finding about the schema, with its remedy."""
    finding = of("schema", findings(empty_database.dsn))
    assert finding.level is Level.ERROR
    assert finding.remedy.startswith("reproq-listen migrate --dsn")
    migrate(empty_database.dsn, schema="jobs", report=lambda _: None)
    assert of("schema", findings(empty_database.dsn)).remedy == "name it: --schema jobs"
    assert bad(findings(empty_database.dsn, schema="jobs")) == set()


def test_rights(database: Database) -> None:
    """A role without rights, a member with the rights of its group, a member that does not inherit them."""
    with login(database) as dsn:
        assert of("grants", findings(dsn)).level is Level.ERROR
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, "reproq_worker") as dsn:
        found = findings(dsn)
        assert of("grants", found).what.endswith("has the rights of reproq_worker")
        assert "error" not in {finding.level for finding in found}
        with database.connect() as connection:
            connection.execute("revoke execute on function reproq_heartbeat from reproq_worker")
        lacking = of("grants", findings(dsn))
        assert lacking.level is Level.ERROR
        assert "reproq_heartbeat" in lacking.what
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database) as dsn:
        role = str(conninfo_to_dict(dsn)["user"])
        with database.connect() as connection:
            connection.execute(f"alter role {role} noinherit".encode())
            connection.execute(f"grant reproq_worker to {role}".encode())
        lacking = of("grants", findings(dsn))
        assert lacking.level is Level.ERROR
        with database.connect() as connection:
            connection.execute(lacking.remedy.encode())
        assert of("grants", findings(dsn)).level is Level.OK
    with login(database) as dsn:
        role = str(conninfo_to_dict(dsn)["user"])
        with database.connect() as connection:
            connection.execute(f"grant execute on function reproq_claim to {role}".encode())
        some = of("grants", findings(dsn))
        assert some.level is Level.ERROR
        assert "reproq_heartbeat" in some.what
        assert "reproq_claim" not in some.what


@pytest.mark.parametrize("groups", [(), ("reproq_producer",), ("reproq_operator", "reproq_observer")])
def test_doctor_role_that_may_not_work(database: Database, groups: tuple[str, ...]) -> None:
    """An error, whatever else the role may do; the remedies, run as the owner, mend it."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    owner = str(conninfo_to_dict(database.dsn)["user"])
    with login(database, *groups) as dsn:
        found = of("grants", findings(dsn))
        assert (found.level, "reproq_claim" in found.what) == (Level.ERROR, True)
        assert all(group in found.what for group in groups)
        command, statement = found.remedy.split("; then: ")
        paste(command.replace("OWNER", owner))
        with database.connect() as connection:
            connection.execute(statement.encode())
        assert of("grants", findings(dsn)).level is Level.OK


def test_doctor_oldest_transaction_and_its_holder_are_named(database: Database) -> None:
    """The session that holds back vacuum, as far as this role may see."""
    with psycopg.connect(database.dsn, application_name="forgotten") as holder:
        holder.execute("select txid_current()")
        what = of("oldest_transaction", findings(database.dsn)).what
        assert f"pid {holder.info.backend_pid}" in what
        assert "forgotten" in what
        with login(database) as dsn:
            finding = of("oldest_transaction", findings(dsn))
            assert finding.level is Level.WARNING
            with database.connect() as connection:
                connection.execute(finding.remedy.encode())
            assert "forgotten" in of("oldest_transaction", findings(dsn)).what


def test_lost_notifications_are_found(database: Database) -> None:
    """A LISTEN that is accepted but gets nothing, as behind a transaction pooler, is an error."""
    with Proxy(database.dsn) as proxy:
        proxy.drop_notifications = True
        finding = of("listen", findings(database.dsn, listen_dsn=proxy.dsn))
    assert finding.level is Level.ERROR
    assert "--listen-dsn" in finding.remedy


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this host without a listener."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_doctor_listen_dsn_that_does_not_answer(database: Database, closed_port: int) -> None:
    """It is a finding, and the other checks are made."""
    found = findings(database.dsn, listen_dsn=f"postgresql://127.0.0.1:{closed_port}/x")
    assert bad(found) == {"listen"}


def test_doctor_what_runs_tasks(database: Database, tmp_path: Path) -> None:
    """A Python that is not there, a module that is not there or fails, an open or empty allow-list, tasks not found."""
    for changes, check, level in (
        ({"python_bin": "/no/such/python"}, "executor", Level.ERROR),
        ({"python_bin": "/bin/false"}, "executor", Level.ERROR),
        ({"executor_module": "no_such_module.executor"}, "executor", Level.ERROR),
        ({"executor_module": "this"}, "executor", Level.OK),  # a module that prints as it is imported
        ({"allowed_task_modules": ("*",)}, "allow_list", Level.WARNING),
        ({"allowed_task_modules": ()}, "allow_list", Level.ERROR),
        ({"allowed_task_modules": ("no_such_package.tasks.",)}, "allow_list", Level.WARNING),
    ):
        found = findings(database.dsn, **changes)
        assert of(check, found).level is level, changes
        assert bad(found) <= {check}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reproq_listen", "doctor", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_doctor_command(database: Database, closed_port: int) -> None:
    """Text and JSON, exit codes, and no password anywhere."""
    healthy = run("--dsn", database.dsn, "--allowed-task-modules", "tests.apps.worker_tasks")
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert "0 errors" in healthy.stdout
    away = run("--dsn", f"postgresql://u:hunter2hunter2@127.0.0.1:{closed_port}/d", "--output", "json")
    assert away.returncode == 1
    lines = [json.loads(line) for line in away.stdout.splitlines()]
    assert lines[0]["check"] == "connection"
    assert set(lines[0]) == {"check", "level", "what", "why", "remedy"}
    assert "hunter2" not in away.stdout + away.stderr
    assert run("--dsn", make_conninfo(database.dsn), "--output", "xml").returncode == 2
