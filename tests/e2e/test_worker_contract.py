"""The schema under a running worker: the interface numbers that it serves, and two installs in one database."""

from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest

from reproq_listen.db.migrations import migrate
from tests.support.database import Database
from tests.support.pages import metric
from tests.support.workers import TASKS, WorkerProcess, enqueue, port_of, wait_for_status

SERVE = (
    "create or replace function reproq_contract(out oldest integer, out newest integer) language sql as $$ select {} $$"
)
CUT_OFF = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reproq-listen'"


@pytest.mark.parametrize("numbers", ["2, 3", "0, 0"])
def test_worker_drains_when_its_contract_is_no_longer_served(database: Database, tmp_path: Path, numbers: str) -> None:
    """Found at the next connect: it claims nothing more, its task ends and is stored, and it exits with code 3."""
    with WorkerProcess(database.dsn).ready() as worker:
        running = enqueue(database, "note_and_sleep", str(tmp_path / "noted"), 2)
        wait_for_status(database, running, "RUNNING")
        with database.connect() as connection:
            connection.execute(SERVE.format(numbers).encode())
            connection.execute(CUT_OFF.encode())
        worker.wait_for("contract_refused")
        later = enqueue(database, "add", 1, 2)
        assert worker.wait() == 3
        assert wait_for_status(database, running, "SUCCESSFUL")
        assert wait_for_status(database, later, "READY")["attempts"] == 0
    assert "this program speaks 1. Remedy: " in "".join(worker.plain)


def test_worker_goes_on_while_its_contract_is_in_the_range(database: Database) -> None:
    """A schema that serves newer workers, too."""
    with database.connect() as connection:
        connection.execute(SERVE.format("1, 2").encode())
    with WorkerProcess(database.dsn).ready() as worker:
        with database.connect() as connection:
            connection.execute(CUT_OFF.encode())
        wait_for_status(database, enqueue(database, "add", 1, 2), "SUCCESSFUL")
        worker.wait_for("listen_verified", times=2)


def test_worker_contract_two_installs_in_one_database(database: Database) -> None:
    """A worker is woken and told of cancels by its own schema, and by no other."""
    migrate(database.dsn, schema="other", report=lambda _: None)
    with (
        psycopg.connect(database.dsn, autocommit=True, options="-c search_path=other") as other,
        WorkerProcess(database.dsn, "--schema", "other", "--metrics-addr", "127.0.0.1:0").ready() as worker,
    ):
        row = other.execute("select reproq_enqueue(%s, '[1, 2]')", [f"{TASKS}.add"]).fetchone()
        assert row is not None
        worker.wait_for("task_success")
        assert enqueue(database, "add", 1, 2)
        with database.connect() as connection:
            connection.execute("select reproq_pause('x'), reproq_resume('x')")
        page = urlopen(f"http://127.0.0.1:{port_of(worker)}/metrics", timeout=5).read()
    assert metric(page, "reproq_notifications_total", channel="reproq_ready_other")
    assert metric(page, "reproq_notifications_total", channel="reproq_control_other")  # its canary
    assert metric(page, "reproq_notifications_total", channel="reproq_ready") is None
    assert metric(page, "reproq_notifications_total", channel="reproq_control") is None
