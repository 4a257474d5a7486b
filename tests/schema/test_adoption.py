"""Tables that Django made before, with rows in them, become the same schema, and nothing is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from reproq_listen.db.migrations import StepReport, migrate, roll_back
from reproq_listen.errors import ReproqError
from tests.schema import catalog, django
from tests.support.database import Database

NOW = datetime(2026, 11, 24, 4, 20, tzinfo=UTC)
DJANGOS_OWN = {
    "constraint task_runs.task_runs_parent_id_866fda04_fk_task_runs_result_id",
    "function reproq_task_path_from_spec()",
    "index idx_task_runs_claim",
    "index idx_task_runs_claim_due",
    "index idx_task_runs_concurrency_active",
    "index idx_task_runs_failed_at",
    "index idx_task_runs_lock_key",
    "index idx_task_runs_parent_id",
    "index idx_task_runs_spec_unique",
    "index idx_task_runs_task_path",
    "index idx_task_runs_workflow_id",
    "index idx_workflow_runs_callback",
    "index periodic_tasks_name_537a3e78_like",
    "index reproq_queue_controls_queue_name_1af3ca8a_like",
    "index reproq_workers_worker_id_7cf23c19_like",
    "index task_runs_conc_status_idx",
    "index task_runs_parent_id_866fda04",
    "index task_runs_queue_n_50e8d6_idx",
    "index task_runs_status_26197d_idx",
    "trigger task_runs.trg_task_runs_task_path",
}


def ignore(_: StepReport) -> None:
    """For callers that want no reports."""


def task(**columns: Any) -> dict[str, Any]:
    """A plain row as Django writes it, with some columns said otherwise."""
    return {**django.rows()[0], "result_id": columns.pop("result_id"), **columns}


def running(result_id: int, **columns: Any) -> dict[str, Any]:
    """A row as a Go worker holds it."""
    lease = {"leased_by": "go-1", "leased_until": NOW + timedelta(minutes=5), "started_at": NOW, "attempts": 1}
    return task(result_id=result_id, status="RUNNING", spec_hash=f"{result_id:064}", **lease, **columns)


def fill(connection: psycopg.Connection) -> None:
    """All that Django's side may have left: its rows, held, finished and cancelled ones, and rows of other tables."""
    for row in django.rows():
        django.insert(connection, row)
    django.insert(connection, running(101, lock_key="held"))
    django.insert(connection, {**running(102), "leased_until": None})
    left_behind = {"leased_by": "go-1", "leased_until": NOW, "attempts": 1}
    django.insert(connection, task(result_id=103, status="SUCCESSFUL", finished_at=NOW, return_json=7, **left_behind))
    django.insert(connection, task(result_id=104, status="FAILED", failed_at=NOW, last_error="app_error: x"))
    django.insert(connection, task(result_id=105, status="CANCELLED", cancel_requested=True))
    django.insert(connection, task(result_id=106, spec_hash="again", finished_at=NOW, attempts=1))
    connection.execute(
        "insert into periodic_tasks (name, cron_expr, task_path, payload_json, queue_name, priority, max_attempts,"
        " concurrency_limit, next_run_at, enabled, created_at, updated_at)"
        " values ('nightly', '0 3 * * *', 'shop.tasks.add', '{}', 'default', 0, 3, 0, now(), true, now(), now())"
    )
    connection.execute(
        "insert into reproq_queue_controls (queue_name, paused, created_at, updated_at)"
        " values ('slow', true, now(), now())"
    )
    connection.execute(
        "insert into reproq_workers (worker_id, hostname, concurrency, queues, started_at, last_seen_at)"
        " values ('go-1', 'h', 4, '[\"default\"]', now(), now())"
    )


def read_rows(database: Database, table: str, key: str) -> dict[Any, dict[str, Any]]:
    with database.connect() as connection:
        query = f"select * from {table}".encode()
        return {row[key]: row for row in connection.cursor(row_factory=dict_row).execute(query)}


@pytest.fixture
def django_database(empty_database: Database) -> Database:
    with empty_database.connect() as connection:
        django.create_tables(connection)
    return empty_database


def assert_same_schema(adopted: Database, clean: Database) -> None:
    with adopted.connect() as left, clean.connect() as right:
        assert set(catalog.column_order(left)) == set(catalog.column_order(right))
        changed = catalog.difference(catalog.read(left), catalog.read(right))
        assert {name: pair for name, pair in changed.items() if name not in DJANGOS_OWN} == {}
        assert all(right_side is None for _, right_side in changed.values())


@pytest.mark.parametrize("worker_migrated", [False, True], ids=["before migrate-worker", "after migrate-worker"])
def test_same_schema_and_nothing_lost(django_database: Database, database: Database, *, worker_migrated: bool) -> None:
    """The catalog equals a new database's, Django's own objects stay, and every value it wrote is still there."""
    with django_database.connect() as connection:
        if worker_migrated:
            django.migrate_worker(connection)
        fill(connection)
        before_schema = catalog.read(connection)
    before = read_rows(django_database, "task_runs", "result_id")
    others = [("periodic_tasks", "name"), ("reproq_queue_controls", "queue_name"), ("reproq_workers", "worker_id")]
    before_others = [read_rows(django_database, *other) for other in others]

    migrate(django_database.dsn, report=ignore)

    assert_same_schema(django_database, database)
    with django_database.connect() as connection:
        after_schema = catalog.read(connection)
    kept = {name: text for name, text in before_schema.items() if name in DJANGOS_OWN}
    assert catalog.difference(kept, {name: after_schema[name] for name in kept}) == {}

    after = read_rows(django_database, "task_runs", "result_id")
    assert after.keys() == before.keys()
    mended = {
        102: {"leased_until"},
        103: {"leased_until"},
        104: {"finished_at"},
        105: {"finished_at"},
        106: {"finished_at"},
    }
    for result_id, row in before.items():
        changed = {name for name, value in row.items() if after[result_id][name] != value} - {"updated_at"}
        assert changed == mended.get(result_id, set()), f"task {result_id}"
    assert after[104]["finished_at"] == NOW
    assert after[101]["lease_token"] is not None
    assert after[101]["leased_until"] == before[101]["leased_until"]
    for old, other in zip(before_others, others, strict=True):
        new = read_rows(django_database, *other)
        assert {key: {name: new[key][name] for name in row} for key, row in old.items()} == old


def test_adoption_oldest_of_active_duplicates_keeps_the_hash(django_database: Database) -> None:
    """Of active rows with one spec_hash the oldest keeps it, the others get fresh ones; final rows are left alone."""
    with django_database.connect() as connection:
        for result_id, status in enumerate(["SUCCESSFUL", "READY", "RUNNING", "READY", "WAITING"], start=1):
            ends = {"finished_at": NOW} if status == "SUCCESSFUL" else {}
            lease = {"leased_by": "go-1", "leased_until": NOW} if status == "RUNNING" else {}
            django.insert(connection, task(result_id=result_id, status=status, spec_hash="duplicate", **ends, **lease))
    migrate(django_database.dsn, report=ignore)
    hashes = {key: row["spec_hash"] for key, row in read_rows(django_database, "task_runs", "result_id").items()}
    assert [key for key, value in hashes.items() if value == "duplicate"] == [1, 2, 5]
    assert len({hashes[2], hashes[3], hashes[4]}) == 3
    assert all(len(hashes[key]) == 32 for key in (3, 4))


def test_running_tasks_that_share_a_lock_key_are_refused(django_database: Database) -> None:
    """Two RUNNING rows of one lock key cannot be mended by a machine: they are listed with the remedy, and stay."""
    with django_database.connect() as connection:
        django.insert(connection, running(1, lock_key="boat"))
        django.insert(connection, running(2, lock_key="boat"))
        django.insert(connection, running(3, lock_key="car"))
    with pytest.raises(ReproqError, match=r"boat \(task 1, 2\).*reproq reclaim.*RQ004"):
        migrate(django_database.dsn, report=ignore)
    with django_database.connect() as connection:
        rows = connection.execute("select status, leased_by from task_runs").fetchall()
        assert rows == [("RUNNING", "go-1")] * 3
        connection.execute("update task_runs set status = 'READY', leased_by = null where result_id = 2")
    reports = migrate(django_database.dsn, report=ignore)
    assert reports[-1].outcome == "applied"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"status": "PENDING"}, "status PENDING"),
        ({"run_after": "infinity"}, "infinite time"),
        ({"queue_name": "q" * 600}, "queue_name longer than 512 bytes"),
    ],
)
def test_rows_that_no_worker_can_run_are_listed(
    django_database: Database, columns: dict[str, Any], reason: str
) -> None:
    """A row that the table will not take is named with the reason; the others keep waiting untouched."""
    with django_database.connect() as connection:
        django.insert(connection, task(result_id=8, **columns))
    with pytest.raises(ReproqError, match=rf"8 \({reason}\).*RQ004"):
        migrate(django_database.dsn, report=ignore)


def test_nulls_and_an_unchecked_constraint_are_filled_in(django_database: Database, database: Database) -> None:
    """Columns that may be null there get our defaults; a check that was NOT VALID is validated after the mend."""
    with django_database.connect() as connection:
        connection.execute("alter table task_runs drop constraint task_runs_task_path_not_empty")
        connection.execute("alter table task_runs disable trigger trg_task_runs_task_path")
        for column in ("priority", "errors_json", "created_at"):
            connection.execute(f"alter table task_runs alter column {column} drop not null".encode())
        django.insert(connection, task(result_id=1, priority=None, errors_json=None, created_at=None, task_path=None))
        connection.execute(
            "alter table task_runs add constraint task_runs_task_path_not_empty"
            " check (task_path is not null and task_path <> '') not valid"
        )
        connection.execute("alter table task_runs enable trigger trg_task_runs_task_path")
    migrate(django_database.dsn, report=ignore)
    row = read_rows(django_database, "task_runs", "result_id")[1]
    assert (row["priority"], row["errors_json"], row["task_path"]) == (0, [], "shop.tasks.ship")
    assert_same_schema(django_database, database)


def test_adoption_fixed_width_hash_becomes_the_one_type(django_database: Database, database: Database) -> None:
    """spec_hash as char(64) is adopted too: the type is the same afterwards, and padding is gone."""
    with django_database.connect() as connection:
        connection.execute("alter table task_runs alter column spec_hash type char(64)")
        django.insert(connection, task(result_id=1, spec_hash="abc"))
    migrate(django_database.dsn, report=ignore)
    assert read_rows(django_database, "task_runs", "result_id")[1]["spec_hash"] == "abc"
    assert_same_schema(django_database, database)


def test_migrate_worker_after_ours_changes_nothing_of_ours(database: Database) -> None:
    """Django's command may run at any time: its indexes and its trigger join ours, and its rows still go in and out."""
    with database.connect() as connection:
        before = catalog.read(connection)
        django.migrate_worker(connection)
        after = catalog.read(connection)
        assert set(catalog.difference(before, after)) <= DJANGOS_OWN
        for row in django.rows():
            django.insert(connection, row)
        connection.execute("select reproq_register_worker('w', 'h', 1, array['default'], 'test')")
        claimed = connection.execute(
            "select count(*) from reproq_claim('w', array['default'], 100, interval '1 minute')"
        ).fetchone()
        assert claimed is not None
        assert claimed[0] > 0


def test_adoption_rollback_gives_the_tables_back(django_database: Database) -> None:
    """Rolled back, empty adopted tables are Django's again, to the last index; what the steps made is gone."""
    with django_database.connect() as connection:
        before = catalog.read(connection)
    steps = migrate(django_database.dsn, report=ignore)
    roll_back(django_database.dsn, steps=len(steps), report=ignore)
    with django_database.connect() as connection:
        assert catalog.difference(before, catalog.read(connection)) == {}


def test_adoption_rollback_keeps_rows_and_takes_columns(
    django_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """With rows the adopted tables are Django's again, too; of the others those with rows stay, and are named."""
    with django_database.connect() as connection:
        before = catalog.read(connection)
        for row in django.rows():
            django.insert(connection, row)
        count = connection.execute("select count(*) from task_runs").fetchone()
    steps = migrate(django_database.dsn, report=ignore)
    with django_database.connect() as connection:
        connection.execute("insert into workflow_runs (workflow_id, expected_count) values (gen_random_uuid(), 1)")
        connection.execute("select * from reproq_metrics()")
        connection.execute("select count(*) from reproq_claim('w', array['default'], 3, interval '1 minute')")
    roll_back(django_database.dsn, steps=len(steps), report=ignore)
    assert "they stay, for they hold rows: workflow_runs. " in capsys.readouterr().err
    with django_database.connect() as connection:
        assert connection.execute("select count(*) from task_runs").fetchone() == count
        assert connection.execute("select count(*) from workflow_runs").fetchone() == (1,)
        connection.execute("drop table workflow_runs")
        assert catalog.difference(before, catalog.read(connection)) == {}
    migrate(django_database.dsn, report=ignore)


def test_adoption_index_that_was_half_built_is_built_again(django_database: Database, database: Database) -> None:
    """A concurrent build that broke leaves an invalid index of the name; the step replaces it."""
    with django_database.connect() as connection:
        django.insert(connection, running(1, lock_key="k"))
        django.insert(connection, {**running(2, lock_key="k"), "status": "FAILED", "finished_at": NOW})
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("create unique index concurrently task_runs_claim on task_runs (lock_key)")
    migrate(django_database.dsn, report=ignore)
    assert_same_schema(django_database, database)
