"""Schedules and tasks that Python modules declare: set, pruned, listed, fired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.rows import dict_row

from reproq_listen import InvalidTaskError, Schedule
from tests.apps import client_tasks as app
from tests.support.commands import run, run_here
from tests.support.database import Database

MODULE = "tests.apps.client_schedules"


def stored(database: Database) -> dict[str, dict[str, Any]]:
    with database.connect() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        return {row["name"]: row for row in cursor.execute("select * from periodic_tasks").fetchall()}


def test_schedule_sync_sets_and_prunes(database: Database) -> None:
    """What a module declares, with the options of its calls; again changes nothing; others stay without --prune."""
    with database.connect() as connection:
        connection.execute("select reproq_schedule_set('other', '@daily', 'app.other')")
    dsn = ("--dsn", database.dsn)
    first = run_here("schedule", "sync", MODULE, *dsn)
    assert (first.code, first.out) == (0, "welcome: created\ncontext: created\n")
    assert run_here("schedule", "sync", MODULE, *dsn).out == "welcome: unchanged\ncontext: unchanged\n"
    rows = stored(database)
    assert rows.keys() == {"welcome", "context", "other"}
    assert rows["welcome"]["payload_json"] == {"args": [3, 4], "kwargs": {"loud": True}}
    assert (rows["welcome"]["queue_name"], rows["welcome"]["time_zone"]) == ("mail", "Europe/Vienna")
    assert rows["welcome"]["options_json"] == {"timeout_seconds": 60}
    assert rows["context"]["options_json"] == {"takes_context": True}
    assert (rows["context"]["misfire"], rows["context"]["overlap"]) == ("skip", "queue_one")
    pruned = run_here("schedule", "sync", MODULE, "--prune", *dsn)
    assert pruned.out.splitlines()[-1] == "other: removed"
    assert stored(database).keys() == {"welcome", "context"}


def test_schedule_options_reach_each_run(database: Database) -> None:
    """The row of an occurrence has them, as that of an enqueue."""
    run_here("schedule", "sync", MODULE, "--dsn", database.dsn)
    before = datetime.now(UTC) - timedelta(days=2)
    with database.connect() as connection:
        connection.execute("update periodic_tasks set created_at = %s, planned = false, last_run_at = null", [before])
        for name, cron_expr, zone, since, now in connection.execute("select * from reproq_schedules_due()").fetchall():
            fire = "select * from reproq_schedule_fire(%s, %s, %s, %s, array[%s::timestamptz], null)"
            connection.execute(fire, [name, cron_expr, zone, since, now - timedelta(seconds=1)])
        rows: dict[str, Any] = dict(connection.execute("select task_path, spec_json from task_runs").fetchall())
    assert rows[app.add.module_path]["exec"]["timeout_seconds"] == 60
    assert rows[app.with_context.module_path]["takes_context"] is True


def test_schedule_sync_refuses_before_it_writes(database: Database) -> None:
    """A module that is not there, and one without schedules."""
    dsn = ("--dsn", database.dsn)
    assert "there is no module tests.nothing" in run("schedule", "sync", "tests.nothing", *dsn).err
    missing = run_here("schedule", "sync", "tests.apps.client_tasks", *dsn)
    assert (missing.code, "no list of Schedule(...) named schedules" in missing.err) == (2, True)
    assert stored(database) == {}


def test_schedule_refuses_options_of_one_call() -> None:
    """A run has its own time, and is always a new task."""
    with pytest.raises(InvalidTaskError, match="leave delay out"):
        Schedule("a", cron="@daily", call=app.add.using(run_after=timedelta(minutes=1)).call(1, 2))
    with pytest.raises(InvalidTaskError, match="leave on_duplicate, unique_key, unique_while out"):
        Schedule("a", cron="@daily", call=app.debounced.call("a", 1))


def test_tasks_ls_shows_what_a_module_declares() -> None:
    """Path, signature and options; without a database."""
    found = {row["task_path"]: row for row in run_here("tasks", "ls", app.__name__, "--output", "json").json}
    assert found[app.add.module_path]["options"] == {"queue_name": "mail"}
    assert found[app.look_up.module_path]["options"] == {"discard_on": ["LookupError"]}
    assert found[app.add.module_path]["signature"].startswith("(a: 'int', b: 'int'")
