"""In the Go program's place: under its name, with its defaults, for rows and executors that know nothing of us."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_listen.config.definitions import OUR_EXECUTOR
from reproq_listen.db.roles import grant
from reproq_listen.errors import ExitCode
from tests.schema import django
from tests.support.database import ROOT, Database, wait_until
from tests.support.logins import login
from tests.support.workers import WorkerProcess, row

AS_REPROQ = "import sys; sys.argv[0] = 'reproq'; from reproq_listen.cli.main import main; sys.exit(main())"
SUCCESSFUL = {1: "order1", 3: 7, 4: 0, 10: 100, 17: True, 18: 42, 21: 2, 22: 4, 23: 6, 30: 8, 31: "all done", 32: 8}
PARENTS = {25: "parent_failed", 26: "parent_failed", 34: "workflow_failed"}
FAILED = {**dict.fromkeys((16, 24, 33), "app_error"), **PARENTS}
CANCELLED = 35


def insert_rows(connection: psycopg.Connection[Any]) -> dict[int, int]:
    """Django's rows, in its order; gives the id here of each id there. One member of a chord was not listed: again."""
    ids: dict[int, int] = {}
    rows = django.rows()
    (member,) = (found for found in rows if found["result_id"] == 30)
    rows.append({**member, "result_id": 29, "spec_hash": "f" * 32})
    for found in rows:
        given = {**found, "parent_id": ids.get(found["parent_id"])}
        number = given.pop("result_id")
        ids[number] = django.insert(connection, given)
    for workflow in {found["workflow_id"] for found in rows if found["spec_json"]["task_path"].endswith("total")}:
        (callback,) = (found for found in rows if found["workflow_id"] == workflow and found["status"] == "WAITING")
        connection.execute(
            "insert into workflow_runs (workflow_id, expected_count, success_count, failure_count, callback_result_id,"
            " status, created_at, updated_at) values (%s, 2, 0, 0, %s, 'RUNNING', now(), now())",
            [workflow, ids[callback["result_id"]]],
        )
    return ids


@pytest.mark.parametrize("mode", ["spawn", "fork"])
def test_rows_of_django_go_all_the_way(database: Database, mode: str) -> None:
    """Plain, keyed, with context, chains, chords: each to its end, by a foreign executor, in every mode; what Django's
    admin writes directly (metadata, cancel flags, run_after) is heeded on the way."""
    with database.connect() as connection, connection.transaction():
        ids = insert_rows(connection)
        update = "update task_runs set cancel_requested = true, metadata_json = '{\"seen\": 1}' where result_id = %s"
        connection.execute(update, [ids[CANCELLED]])
    flags = ("--executor-module", "tests.apps.shop_executor", "--executor", mode)
    with WorkerProcess(database.dsn, *flags, allowed="shop.tasks.") as worker:
        worker.wait_for("task_retry", times=3, seconds=15)
        with database.connect() as connection:
            connection.execute("update task_runs set run_after = now() where status = 'READY'")
            unfinished = "select count(*) from task_runs where finished_at is null"
            wait_until(lambda: connection.execute(unfinished).fetchone() == (0,), what="all ended", seconds=15)
    found = {number: row(database, result_id) for number, result_id in ids.items()}
    assert {n: r["return_json"] for n, r in found.items() if r["status"] == "SUCCESSFUL" and n != 29} == SUCCESSFUL
    ends = {n: r["errors_json"][-1]["kind"] for n, r in found.items() if r["status"] == "FAILED"}
    assert ends == {**FAILED, CANCELLED: "cancelled"}
    assert found[16]["attempts"] == 2
    assert found[16]["last_error"].startswith("app_error: ")
    assert found[16]["errors_json"][0]["exception_class"] == "ValueError"
    assert found[CANCELLED]["metadata_json"] == {"seen": 1}
    with database.connect() as connection:
        workflows = connection.execute("select status, count(*) from workflow_runs group by 1 order by 1").fetchall()
    assert workflows == [("FAILED", 1), ("SUCCESSFUL", 1)]


def reproq(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The program under the Go program's name."""
    return subprocess.run(
        [sys.executable, "-c", AS_REPROQ, *args],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_stand_in_alias_has_the_go_programs_defaults(database: Database, tmp_path: Path) -> None:
    """As `reproq`, a task runs in reproq_django.executor of `python3`, all settings from the contract's variables."""
    package = tmp_path / "reproq_django"
    package.mkdir()
    (package / "__init__.py").write_text("")
    shutil.copy(ROOT / "tests" / "apps" / "shop_executor.py", package / "executor.py")
    with database.connect() as connection:
        result_id = django.insert(connection, {k: v for k, v in django.rows()[1].items() if k != "result_id"})
    environ = {
        "DATABASE_URL": database.dsn,
        "ALLOWED_TASK_MODULES": "shop.",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = reproq("worker", "--drain", "--concurrency=4", **environ)
    assert done.returncode == 0, done.stderr
    assert row(database, result_id)["return_json"] == 7


THREAD_IN_READY = """
import os, sys, threading, time
if os.environ.get("REPROQ_MEMORY_LOG_INTERVAL") or os.environ.get("ALWAYS_A_THREAD"):
    threading.Thread(target=time.sleep, args=(600,), name="reproq-memory", daemon=True).start()
from tests.apps.shop_executor import main
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.parametrize(("variable", "mode"), [("REPROQ_MEMORY_LOG_INTERVAL", "fork"), ("ALWAYS_A_THREAD", "spawn")])
def test_stand_in_alias_runs_applications_that_start_threads(
    database: Database, tmp_path: Path, variable: str, mode: str
) -> None:
    """As Reproq Django does for that variable, which is kept from it. With other threads tasks run in `spawn`, and the
    log says so; who asks for `fork` gets an error."""
    package = tmp_path / "reproq_django"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "executor.py").write_text(THREAD_IN_READY)
    with database.connect() as connection:
        result_id = django.insert(connection, {k: v for k, v in django.rows()[1].items() if k != "result_id"})
    environ = {
        "DATABASE_URL": database.dsn,
        "ALLOWED_TASK_MODULES": "shop.",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        variable: "60s",
    }
    done = reproq("worker", "--drain", "--concurrency=4", **environ)
    assert done.returncode == 0, done.stderr
    assert f'"executor": "{mode}"' in done.stderr
    assert ("reproq-memory" in done.stderr) == (mode == "spawn")
    assert row(database, result_id)["return_json"] == 7
    if mode == "spawn":
        assert reproq("worker", "--drain", "--executor=fork", **environ).returncode == ExitCode.FORKSERVER


def test_stand_in_alias_says_what_it_misses(database: Database) -> None:
    """Without Reproq Django installed the default executor is named, and ours is not taken instead."""
    for mode, status in (("spawn", ExitCode.USAGE), ("fork", ExitCode.FORKSERVER)):
        missing = reproq("worker", "--dsn", database.dsn, "--executor", mode)
        assert missing.returncode == status
        assert "reproq_django" in missing.stderr


def test_stand_in_port_in_use_stops_no_worker(database: Database, tmp_path: Path) -> None:
    """Nor do an unknown key, parameters for pgx, empty flags and what else the Go program takes; the log tells."""
    (tmp_path / "reproq.yaml").write_text('dsn: ""\nworker:\n  dsn: ""\n  colour: red\n  heartbeat_seconds: 0\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = {
            "DATABASE_URL": f"{database.dsn} pool_max_conns=10 search_path=public",
            "METRICS_ADDR": f"127.0.0.1:{taken.getsockname()[1]}",
            "METRICS_ALLOW_CIDRS": "localhost",
            "QUEUE_NAMES": "a, b,,c",
            "REPROQ_MEMORY_LOG_INTERVAL": "off",
        }
        flags = ("--config", str(tmp_path / "reproq.yaml"), "--executor-module", OUR_EXECUTOR, "--logs-dir", "")
        done = reproq("worker", "--drain", *flags, **environ)
    assert done.returncode == 0, done.stderr
    for words in ("no key worker.colour", "pool_max_conns", "Address already in use"):
        assert words in done.stderr


def test_version_and_unknown_flags_as_a_user_expects() -> None:
    """`reproq version`, `reproq --version`; a flag that does not exist is exit 2 with the nearest one."""
    assert reproq("version").stdout == reproq("--version").stdout
    wrong = reproq("worker", "--concurency", "3")
    assert wrong.returncode == 2
    assert "--concurrency" in wrong.stderr


def test_torture_ends_well(database: Database) -> None:
    """The stress command: all tasks ended, exit 0; the DSN is not among any arguments but its own. Who could not see it
    to its end begins nothing."""
    done = reproq("torture", "--dsn", database.dsn, "--count", "60")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("60 SUCCESSFUL; ")
    for bad in (("--count", "0"), ("--concurrency", "0"), ("--executor", "x")):
        assert reproq("torture", "--dsn", database.dsn, *bad).returncode == 2
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, "reproq_producer") as dsn:
        assert reproq("torture", "--dsn", dsn).returncode == 1
    with database.connect() as connection:
        assert connection.execute("select count(*) from task_runs").fetchone() == (60,)
