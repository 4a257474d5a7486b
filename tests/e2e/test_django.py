"""Our backend of `django.tasks` in a project of Django 6: its own tests, its migration, and real workers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import django
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import ROOT, Database
from tests.support.workers import WorkerProcess

pytestmark = [
    pytest.mark.skipif(django.VERSION < (6,), reason="django.tasks came with Django 6 (Python 3.12)"),
    pytest.mark.timeout(240),
]

SITE = "tests.apps.django_shop"


def manage(database: Database, *arguments: str) -> str:
    """Run a command of Django in the project. Gives what it printed; it must succeed."""
    environ = {**os.environ, "DATABASE_URL": database.dsn, "DJANGO_SETTINGS_MODULE": f"{SITE}.settings"}
    command = [sys.executable, "-m", "django", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def enqueue(database: Database, expression: str) -> int:
    """Enqueue in a process of the project."""
    code = f"from {SITE} import tasks; print('id', {expression}.id)"
    return int(manage(database, "shell", "--no-imports", "-c", code).split()[-1])


def results(database: Database, *ids: int) -> list[dict[str, Any]]:
    """What the project sees of them."""
    code = (
        "import json; from django.tasks import default_task_backend as b;"
        f"found = [b.get_result(str(i)) for i in {list(ids)}];"
        "print(json.dumps([{'status': r.status, 'value': r._return_value, 'attempts': r.attempts, "
        "'errors': [e.exception_class_path for e in r.errors], 'traceback': ''.join(e.traceback for e in r.errors),"
        "'finished': r.is_finished} for r in found]))"
    )
    import json

    found: list[dict[str, Any]] = json.loads(manage(database, "shell", "--no-imports", "-c", code).splitlines()[-1])
    return found


def test_django_tests_of_the_project(empty_database: Database) -> None:
    """`manage.py test`: the migration makes Django's test database; TestCase rolls back what was enqueued."""
    assert "OK" in manage(empty_database, "test", f"{SITE}.tests")


def test_django_migrate_brings_the_schema_and_takes_it_as_it_is(empty_database: Database, database: Database) -> None:
    """On an empty database, and on one that `reproq-listen migrate` has built."""
    for target in (empty_database, database):
        manage(target, "migrate")
        assert "reproq_listen" in manage(target, "showmigrations", "reproq_listen")
        with target.connect() as session:
            assert session.execute("select to_regprocedure('reproq_pause(text, text)') is not null").fetchone() == (
                True,
            )


@pytest.mark.parametrize("mode", ["spawn", "fork", "pool"])
def test_django_tasks_run(empty_database: Database, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Plain, keyed, async and with Django's context; failures have class and traceback."""
    manage(empty_database, "migrate")
    expressions = (
        "tasks.add.enqueue(2, b=3)",
        "tasks.send.enqueue(9)",
        "tasks.later.enqueue(4)",
        "tasks.remember.enqueue('staff')",
        "tasks.fail.enqueue('sku')",
        "tasks.unserializable.enqueue()",
    )
    code = f"from {SITE} import tasks; print('ids', *[r.id for r in ({', '.join(expressions)})])"
    ids = [
        int(word) for word in manage(empty_database, "shell", "--no-imports", "-c", code).splitlines()[-1].split()[1:]
    ]
    monkeypatch.setenv("DATABASE_URL", empty_database.dsn)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", f"{SITE}.settings")
    flags = ("--executor", mode, "--queues", "default,mail", "--drain")
    with WorkerProcess(empty_database.dsn, *flags, allowed=SITE) as worker:
        assert worker.wait() == 0, worker.events
    add, send, later, remember, fail, unserializable = results(empty_database, *ids)
    assert [one["value"] for one in (add, send, later)] == [5, "sent to 9", 8]
    assert remember["value"] == {"attempt": 1, "id": str(ids[3]), "queue": "default"}
    assert {one["status"] for one in (add, send, later, remember)} == {"SUCCESSFUL"}
    assert (fail["status"], fail["errors"], fail["attempts"]) == ("FAILED", ["builtins.LookupError"], 1)
    assert "in fail" in fail["traceback"]
    assert unserializable["status"] == "FAILED"
    assert "JSON" in unserializable["traceback"]
    with empty_database.connect() as session:
        assert session.execute("select name from auth_group").fetchall() == [("staff",)]
        found = session.execute(
            "select metadata_json -> 'name' from task_runs where result_id = %s", [ids[3]]
        ).fetchone()
        assert found == ("staff",)


def test_django_executor_runs_rows_that_others_wrote(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row from SQL for a Django task, which says nothing of a context."""
    manage(empty_database, "migrate")
    with empty_database.connect() as session:
        row = session.execute("select reproq_enqueue(%s, %s)", [f"{SITE}.tasks.add", Jsonb([5])]).fetchone()
    assert row is not None
    monkeypatch.setenv("DATABASE_URL", empty_database.dsn)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", f"{SITE}.settings")
    with WorkerProcess(empty_database.dsn, "--drain", allowed=SITE) as worker:
        assert worker.wait() == 0
    assert results(empty_database, row[0])[0]["value"] == 6
