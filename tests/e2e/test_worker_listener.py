"""When the worker claims: on NOTIFY, at the exact time, by polling without LISTEN, and hardly ever when idle."""

from __future__ import annotations

import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.database import Database, wait_until
from tests.support.pages import metric
from tests.support.proxy import Proxy
from tests.support.workers import WorkerProcess, enqueue, port_of, wait_for_status


def seconds_between(earlier: Any, later: Any) -> float:
    return float((later - earlier).total_seconds())


def test_worker_claims_on_notify_within_milliseconds(database: Database) -> None:
    """A task enqueued while the worker sleeps is claimed within milliseconds, not at the next poll."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        waits = []
        for n in range(5):
            done = wait_for_status(database, enqueue(database, "add", n, 1), "SUCCESSFUL")
            assert done["return_json"] == n + 1
            waits.append(seconds_between(done["enqueued_at"], done["started_at"]))
        assert sorted(waits)[2] < 0.05
        assert max(waits) < 1


def test_worker_starts_a_task_exactly_when_it_is_due(database: Database) -> None:
    """The timer is exact: no look at the database between the news of the task and its time."""
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn) as worker:
        worker.ready()
        due = datetime.now(UTC) + timedelta(seconds=2.2)
        asleep = len(proxy.executed)
        result_id = enqueue(database, "add", 1, 1, run_after=due.isoformat())
        wait_until(
            lambda: any(b"reproq_claim" in each for each in proxy.executed[asleep:]),
            what="the notification made the worker claim",
        )
        before = len(proxy.executed)
        done = wait_for_status(database, result_id, "SUCCESSFUL")
        assert -0.001 <= seconds_between(done["run_after"], done["started_at"]) < 0.1
        assert b"reproq_claim" in proxy.executed[before]


def test_worker_flood_of_notifications_costs_few_claims(database: Database) -> None:
    """Any role may NOTIFY: after a few claims for nothing there is one in each --poll-min-backoff; a task is found."""
    with WorkerProcess(database.dsn, "--metrics-addr", "127.0.0.1:0", "--poll-min-backoff", "500ms").ready() as worker:
        port = port_of(worker)

        def claims() -> float:
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()
            return metric(page, "reproq_db_operation_duration_seconds_count", operation="claim") or 0

        before = claims()
        with database.connect() as connection:
            until = time.monotonic() + 3
            while time.monotonic() < until:
                connection.execute("notify reproq_ready")
        assert claims() - before < 20
        result_id = enqueue(database, "add", 1, 1)
        wait_for_status(database, result_id, "SUCCESSFUL")


def test_worker_that_is_idle_sends_no_statements(database: Database) -> None:
    """While listening is verified an idle worker sends at most 6 statements a minute: here not one in 4 seconds."""
    with Proxy(database.dsn) as proxy, WorkerProcess(proxy.dsn) as worker:
        worker.ready()
        settled = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > settled, what="the first looks are over")
        before = len(proxy.statements)
        over = time.monotonic() + 4
        wait_until(lambda: time.monotonic() > over, what="four idle seconds")
        assert proxy.statements[before:] == []


def test_worker_polls_when_no_notification_arrives(database: Database) -> None:
    """When notifications never arrive the worker finds out by its canary, logs it, and finds tasks by polling."""
    with Proxy(database.dsn) as proxy:
        proxy.drop_notifications = True
        with WorkerProcess(proxy.dsn, "--poll-max-backoff", "1s") as worker:
            worker.wait_for("listener_down")
            done = wait_for_status(database, enqueue(database, "add", 1, 1), "SUCCESSFUL")
            assert seconds_between(done["enqueued_at"], done["started_at"]) < 1.5
            assert worker.seen("listen_verified") == 0
            proxy.drop_notifications = False
            worker.wait_for("listen_verified", seconds=15)


def test_listener_on_another_database_is_found_down(database: Database, empty_database: Database) -> None:
    """A wrong --listen-dsn costs latency, not tasks."""
    flags = ("--listen-dsn", empty_database.dsn, "--poll-max-backoff", "1s")
    with WorkerProcess(database.dsn, *flags) as worker:
        worker.wait_for("listener_down")
        wait_for_status(database, enqueue(database, "add", 1, 1), "SUCCESSFUL")


def test_worker_reconnects_and_listens_again(database: Database) -> None:
    """After every connection was killed the worker listens again and claims the next task on NOTIFY."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        for times in (2, 3):
            with database.connect() as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            worker.wait_for("listen_verified", times=times)
        done = wait_for_status(database, enqueue(database, "add", 1, 1), "SUCCESSFUL")
        assert seconds_between(done["enqueued_at"], done["started_at"]) < 1


def test_worker_claims_as_slots_become_free(database: Database, tmp_path: Path) -> None:
    """More tasks than slots, enqueued before the start, all run without a further notification, long before a poll.

    Each takes longer than the shortest pause, so that no claim after a pause finds a free slot by chance.
    """
    ids = [enqueue(database, "note_and_sleep", str(tmp_path / "pids"), 0.6) for _ in range(5)]
    with WorkerProcess(database.dsn, "--concurrency", "2"):
        for result_id in ids:
            wait_for_status(database, result_id, "SUCCESSFUL", seconds=12)
