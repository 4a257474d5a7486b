"""The migrations end at the schema that sql/ describes, can be repeated and can be taken back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb

from reproq_listen.db.dsn import conninfo
from reproq_listen.db.migrations import LOCK_SECONDS, StepReport, migrate, roll_back
from reproq_listen.errors import ReproqError
from tests.schema import catalog
from tests.support.database import ROOT, Database, create_database, drop_database, install, wait_until
from tests.support.logins import login

STEPS = sorted(path.stem for path in (ROOT / "migrations").glob("[0-9]*.*") if not path.name.endswith(".rollback.sql"))


def ignore(_: StepReport) -> None:
    """For callers that want no reports."""


def snapshot(database: Database, schema: str = "public") -> dict[str, str]:
    with database.connect() as connection:
        return catalog.read(connection, schema)


@pytest.fixture
def other_database(server_dsn: str) -> Iterator[Database]:
    """A second empty database, to compare with."""
    created = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}")
    yield created
    drop_database(server_dsn, created.name)


def test_migrations_end_at_the_schema_of_sql(empty_database: Database, other_database: Database) -> None:
    """A database built by the steps equals one built from sql/: text, settings, grants, comments, order of columns."""
    migrate(empty_database.dsn, report=ignore)
    install(other_database)
    assert catalog.difference(snapshot(other_database), snapshot(empty_database)) == {}
    with empty_database.connect() as left, other_database.connect() as right:
        assert catalog.column_order(left) == catalog.column_order(right)
        rows = "select key, tokens_per_second, burst_size, current_tokens from rate_limits"
        assert left.execute(rows).fetchall() == right.execute(rows).fetchall() == [("global", 0, 1, 0)]


def test_migrations_every_step_runs_twice(empty_database: Database) -> None:
    """Apply and mark are two transactions: after a crash between them a step runs again, and that changes nothing."""
    migrate(empty_database.dsn, report=ignore)
    whole = snapshot(empty_database)
    for behind, name in enumerate(reversed(STEPS)):
        if behind:
            roll_back(empty_database.dsn, steps=behind, report=ignore)
        forget(empty_database, name)
        applied = [item.step for item in migrate(empty_database.dsn, report=ignore) if item.outcome == "applied"]
        assert applied == STEPS[-behind - 1 :]
        assert catalog.difference(whole, snapshot(empty_database)) == {}
    with empty_database.connect() as connection:
        assert connection.execute("select count(*) from _reproq_adopted").fetchone() == (0,)


def test_migrations_every_step_can_be_taken_back_and_applied_again(empty_database: Database) -> None:
    """Step by step down to nothing, a second rollback of each included, and up again to the same schema."""
    migrate(empty_database.dsn, report=ignore)
    whole = snapshot(empty_database)
    for depth in range(1, len(STEPS) + 1):
        undone = [item.step for item in roll_back(empty_database.dsn, steps=depth, report=ignore)]
        assert undone == STEPS[::-1][:depth]
        migrate(empty_database.dsn, report=ignore)
        assert catalog.difference(whole, snapshot(empty_database)) == {}
    for _ in STEPS:
        (report,) = roll_back(empty_database.dsn, report=ignore)
        remember(empty_database, report.step)
        (again,) = roll_back(empty_database.dsn, report=ignore)
        assert again == report
    assert snapshot(empty_database) == {}


def test_rollback_refuses_while_rows_exist(empty_database: Database) -> None:
    """Tables with rows are not dropped: the step says so and everything stays."""
    migrate(empty_database.dsn, report=ignore)
    with empty_database.connect() as connection:
        connection.execute("insert into task_runs (spec_json, spec_hash) values ('{\"task_path\": \"a.b\"}', 'x')")
    with pytest.raises(ReproqError, match=r"table task_runs holds rows.*RQ004"):
        roll_back(empty_database.dsn, steps=len(STEPS), report=ignore)
    with empty_database.connect() as connection:
        assert connection.execute("select count(*) from task_runs").fetchone() == (1,)


def test_another_schema_than_public(empty_database: Database) -> None:
    """`--schema` makes the schema and puts everything there, whatever its name; public stays empty."""
    name = 'my "own tasks'
    migrate(empty_database.dsn, schema=name, report=ignore)
    inside = snapshot(empty_database, name)
    assert snapshot(empty_database) == {}
    migrate(empty_database.dsn, report=ignore)
    assert catalog.difference(inside, snapshot(empty_database)) == {}
    with empty_database.connect() as connection:
        connection.execute("select set_config('search_path', '\"my \"\"own tasks\"', false)")
        assert connection.execute("select reproq_enqueue('app.tasks.add') is not null").fetchone() == (True,)
        assert connection.execute("select count(*) from task_runs").fetchone() == (1,)
        assert connection.execute("select count(*) from public.task_runs").fetchone() == (0,)


@pytest.mark.parametrize("schema", ["tasks", "My Tasks", 'a"b', "a\\b", "a'b", "ü,x"])
def test_migrations_schema_leads_the_search_path(server_dsn: str, schema: str) -> None:
    """A schema of any name is what sessions find first; the options of the DSN stay."""
    with_options = make_conninfo(server_dsn, options="-c work_mem=8MB")
    with psycopg.connect(conninfo(with_options, schema=schema)) as connection:
        assert connection.execute("show work_mem").fetchone() == ("8MB",)
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
        assert connection.execute("select current_schema()").fetchone() == (schema,)
        connection.rollback()


def test_dry_run_writes_nothing(empty_database: Database) -> None:
    """A dry run names the steps and leaves no table, not even yoyo's, and no schema."""
    reports = migrate(empty_database.dsn, schema="tasks", dry_run=True, report=ignore)
    assert [(item.step, item.outcome) for item in reports] == [(step, "pending") for step in STEPS]
    with empty_database.connect() as connection:
        query = "select relname from pg_class where relnamespace >= 16384 or relnamespace = 'public'::regnamespace"
        assert connection.execute(query).fetchall() == []
        assert connection.execute("select to_regnamespace('tasks')").fetchone() == (None,)
    migrate(empty_database.dsn, schema="tasks", report=ignore)
    reports = migrate(empty_database.dsn, schema="tasks", dry_run=True, report=ignore)
    assert {item.outcome for item in reports} == {"present"}


def test_yoyo_apply_from_a_checkout(empty_database: Database) -> None:
    """`yoyo apply` in the checkout reads REPROQ_YOYO_URL and does the same as `reproq-listen migrate`."""
    params = conninfo_to_dict(empty_database.dsn)
    query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in params.items() if key != "dbname")
    url = f"postgresql+psycopg:///{empty_database.name}?{query}"
    yoyo = Path(sys.executable).parent / "yoyo"
    environment = {**os.environ, "REPROQ_YOYO_URL": url}
    subprocess.run([yoyo, "apply"], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert {item.outcome for item in migrate(empty_database.dsn, report=ignore)} == {"present"}


def test_migrations_lock_left_behind_names_its_remedy(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that was killed leaves yoyo's lock; the next one says how to remove it."""
    monkeypatch.setattr("reproq_listen.db.migrations.LOCK_SECONDS", 0.1)
    migrate(empty_database.dsn, report=ignore)
    with empty_database.connect() as connection:
        connection.execute("insert into yoyo_lock (locked, ctime, pid) values (1, now(), 4242)")
    with pytest.raises(ReproqError, match=r"4242.*yoyo break-lock"):
        migrate(empty_database.dsn, report=ignore)


def test_migrations_at_the_same_time(empty_database: Database) -> None:
    """Several containers that migrate as they are deployed: each step is applied by one of them, none fails."""
    with ThreadPoolExecutor(max_workers=3) as threads:
        runs = [threads.submit(migrate, empty_database.dsn, schema="tasks", report=ignore) for _ in range(3)]
        reports = [report for run in runs for report in run.result()]
    assert sorted(report.step for report in reports if report.outcome == "applied") == STEPS


def test_writers_do_not_wait_behind_a_step_that_waits(database: Database) -> None:
    """A step that a long transaction keeps waiting lets the writers behind it through each second."""
    with database.connect() as writer, ThreadPoolExecutor(1) as pool:
        holder = database.connect(autocommit=False)
        holder.execute("select reproq_enqueue('app.tasks.add')")
        migration = pool.submit(migrate, database.dsn, report=ignore)
        waiting = "select from pg_locks l where l.relation = 'task_runs'::regclass and not l.granted"
        for number in range(2):
            wait_until(lambda: bool(writer.execute(waiting).fetchall()), what="the step waits for a lock")
            writer.execute("set statement_timeout = '3s'")
            writer.execute("select reproq_enqueue('app.tasks.add', %s)", [Jsonb([number])])
            wait_until(lambda: not writer.execute(waiting).fetchall(), what="the step let others through")
        assert not migration.done()
        holder.close()
        migration.result(timeout=10)


def test_migrations_failed_step_leaves_no_trace(empty_database: Database) -> None:
    """A step that fails is named, with reason and remedy, and can be repeated after the remedy."""
    with empty_database.connect() as connection:
        connection.execute("create view task_runs as select 1 as result_id")
    with pytest.raises(ReproqError, match=r"step 0001_reproq_tables failed.*no table of Reproq.*--schema NAME"):
        migrate(empty_database.dsn, report=ignore)
    with empty_database.connect() as connection:
        assert connection.execute("select to_regclass('workflow_runs'), to_regclass('_reproq_adopted')").fetchone() == (
            None,
            None,
        )
        connection.execute("drop view task_runs")
    assert {item.outcome for item in migrate(empty_database.dsn, report=ignore)} == {"applied"}


def test_migrations_role_that_may_not_create_is_told_so(empty_database: Database) -> None:
    """Missing privileges end in an error that says as whom to connect."""
    with empty_database.connect() as connection:
        connection.execute("drop role if exists reproq_test_nobody")
        connection.execute("create role reproq_test_nobody login")
    try:
        dsn = make_conninfo(empty_database.dsn, options="-c role=reproq_test_nobody")
        with pytest.raises(ReproqError, match=r"permission denied.*connect as the owner"):
            migrate(dsn, schema="tasks", report=ignore)
    finally:
        with empty_database.connect() as connection:
            connection.execute("drop role reproq_test_nobody")


@pytest.mark.parametrize("schema", [None, "jobs"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_migrations_schema_that_is_closed_to_the_role(
    empty_database: Database, schema: str | None, dry_run: bool
) -> None:
    """Before the first migration: which right is missing, and the statement that gives it. A dry run says it too."""
    if schema is not None:
        with empty_database.connect() as connection:
            connection.execute("create schema jobs")
    with login(empty_database) as dsn:
        with pytest.raises(ReproqError, match="no right to create in schema") as refused:
            migrate(dsn, schema=schema, dry_run=dry_run, report=ignore)
        found = re.search("; (grant .*create on schema .* to .*), or connect as its owner", str(refused.value))
        assert found is not None
        with empty_database.connect() as connection:
            connection.execute(found[1].encode())
        assert len(migrate(dsn, schema=schema, dry_run=dry_run, report=ignore)) == len(STEPS)


@pytest.mark.parametrize("dry_run", [True, False])
def test_migrations_who_is_not_the_owner_is_told_so(empty_database: Database, dry_run: bool) -> None:
    """After the first migration: as whom to connect, and without waiting for yoyo's lock."""
    migrate(empty_database.dsn, report=ignore)
    began = time.monotonic()
    with login(empty_database) as dsn, pytest.raises(ReproqError, match=r"permission denied.*connect as the owner"):
        migrate(dsn, dry_run=dry_run, report=ignore)
    assert time.monotonic() - began < LOCK_SECONDS


def forget(database: Database, step: str) -> None:
    """Take the mark of a step away, as if the process had died before it was set."""
    with database.connect() as connection:
        connection.execute("delete from _yoyo_migration where migration_id = %s", [step])


def remember(database: Database, step: str) -> None:
    """Set the mark of a step again, as if the process had died before it was taken away."""
    with database.connect() as connection:
        connection.execute(
            "insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc)"
            " values (encode(sha256(convert_to(%(step)s, 'UTF8')), 'hex'), %(step)s, now())",
            {"step": step},
        )
