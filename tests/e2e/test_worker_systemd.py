"""Messages from a real worker process to a service manager."""

from __future__ import annotations

import itertools
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_listen.embedded.server import EmbeddedServer
from tests.support.database import Database, wait_until
from tests.support.workers import WorkerProcess, enqueue, pids_in, row, wait_for_status

WATCHDOG = 4.0  # seconds


class Manager:
    """The manager's end of the socket, with the time at which each message came."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.messages: list[tuple[float, list[str]]] = []

    def received(self, line: str) -> list[float]:
        """When messages with this line came."""
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                break
            self.messages.append((time.monotonic(), text.split("\n")))
        return [at for at, lines in self.messages if line in lines]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = tmp_path / "notify"
    listening = Manager(path)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG * 1e6)))
    yield listening
    listening.socket.close()


def reports_in_time(manager: Manager, seconds: float) -> bool:
    """Whether for `seconds` no pause between two WATCHDOG messages is longer than the watchdog allows."""
    began = time.monotonic()
    wait_until(
        lambda: not manager.received("") and time.monotonic() > began + seconds, what="time passes", seconds=seconds + 1
    )
    times = [began, *(at for at in manager.received("WATCHDOG=1") if at >= began), time.monotonic()]
    return max(later - earlier for earlier, later in itertools.pairwise(times)) < WATCHDOG * 0.75


def test_worker_reports_ready_alive_and_stopping(database: Database, manager: Manager, tmp_path: Path) -> None:
    """READY when it claims; WATCHDOG while idle, while all slots are in use, and while it drains; STOPPING once."""
    with WorkerProcess(database.dsn, "--concurrency", "1") as worker:
        wait_until(lambda: bool(manager.received("READY=1")), what="the worker is ready")
        worker.ready()
        assert reports_in_time(manager, 4), manager.messages
        note = tmp_path / "pids"
        result_id = enqueue(database, "note_and_sleep", str(note), 10)
        pids_in(note)
        assert reports_in_time(manager, 4), manager.messages
        worker.signal(signal.SIGTERM)
        wait_until(lambda: bool(manager.received("STOPPING=1")), what="the worker stops")
        assert reports_in_time(manager, 4), manager.messages
        assert worker.wait() == 0
    assert row(database, result_id)["status"] == "SUCCESSFUL"
    assert len(manager.received("READY=1")) == len(manager.received("STOPPING=1")) == 1
    assert any("1 of 1 slots in use" in line for _, lines in manager.messages for line in lines)


def test_worker_children_do_not_report(database: Database, manager: Manager) -> None:
    """The manager's variables stay with the worker."""
    with WorkerProcess(database.dsn, allowed="tests.apps.notify_tasks") as worker:
        worker.ready()
        with database.connect() as connection:
            found = connection.execute("select reproq_enqueue('tests.apps.notify_tasks.manager_variables')").fetchone()
        assert found is not None
        assert wait_for_status(database, found[0], "SUCCESSFUL")["return_json"] == []


def test_worker_is_not_ready_without_a_schema(empty_database: Database, manager: Manager) -> None:
    """A worker that cannot claim never reports READY."""
    with WorkerProcess(empty_database.dsn) as worker:
        assert worker.wait() == 3
    assert manager.received("READY=1") == []


def test_worker_reports_alive_while_the_database_is_away(
    own_server: tuple[EmbeddedServer, Database], manager: Manager
) -> None:
    """A worker that waits for its database still reports."""
    server, database = own_server
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        server.stop("immediate")
        worker.wait_for("database_away")
        assert reports_in_time(manager, 4), manager.messages


def test_worker_with_a_hanging_claim_loop_stops_reporting(database: Database, manager: Manager) -> None:
    """The claim loop itself reports: running heartbeats and notifications do not count."""
    with WorkerProcess(database.dsn, "--heartbeat-seconds", "0.2", program="tests.support.stuck_worker") as worker:
        worker.ready()
        assert reports_in_time(manager, 4), manager.messages
        worker.signal(signal.SIGUSR1)
        enqueue(database, "add", 1, 2)
        assert not reports_in_time(manager, 4), manager.messages


def test_worker_that_is_frozen_stops_reporting(database: Database, manager: Manager) -> None:
    """A frozen process sends nothing: the watchdog sees it."""
    with WorkerProcess(database.dsn) as worker:
        worker.ready()
        worker.signal(signal.SIGSTOP)
        assert not reports_in_time(manager, 4), manager.messages
        worker.signal(signal.SIGCONT)
        assert reports_in_time(manager, 4), manager.messages
