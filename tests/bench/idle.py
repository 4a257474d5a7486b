"""What a worker takes while it has nothing to do."""

from __future__ import annotations

import socket
from pathlib import Path

import psycopg

from tests.bench.measuring import Bench, Bound, Report
from tests.support.database import Database, wait_until
from tests.support.workers import WorkerProcess

MODES = ("spawn", "fork", "pool")
MAX_MIB = {"": 45.0, " with pages": 55.0}


def idle(bench: Bench) -> Report:
    """Resident memory of the idle worker process (template and children apart), without and with HTTP pages."""
    report = Report(numbers={"resident_mib": {}})
    with bench.database() as database:
        for mode in MODES:
            for pages, most in MAX_MIB.items():
                size = _resident_mib(database, mode, with_pages=bool(pages))
                report.numbers["resident_mib"][f"{mode}{pages}"] = round(size, 1)
                report.bounds.append(Bound(f"MiB of {mode}{pages}", size, most))
    return report


def _resident_mib(database: Database, mode: str, *, with_pages: bool) -> float:
    flags = ["--executor", mode]
    if with_pages:
        with socket.create_server(("127.0.0.1", 0)) as free:
            flags += ["--metrics-addr", f"127.0.0.1:{free.getsockname()[1]}"]
    with WorkerProcess(database.dsn, *flags, allowed="tests") as worker:
        worker.ready()
        for _ in range(2):
            _run_something(database)
        for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise OSError("/proc/PID/status has no VmRSS")


def _run_something(database: Database) -> None:
    """An idle worker that has worked before is larger than one that never did."""
    with database.connect() as connection:
        connection.execute("select reproq_enqueue('tests.apps.tasks.add', '[1, 2]', p_dedupe => false)")
        wait_until(lambda: _all_ended(connection), what="it has run")


def _all_ended(connection: psycopg.Connection) -> bool:
    return connection.execute("select from task_runs where status <> 'SUCCESSFUL'").fetchone() is None
