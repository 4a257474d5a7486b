"""Messages to the service manager, over a real datagram socket."""

from __future__ import annotations

import io
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_listen.logs.event_log import Log
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.systemd import ServiceManager


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.address = address

    def received(self) -> list[str]:
        """All messages so far; sending to a local datagram socket is immediate."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(str(tmp_path / "notify") if request.param == "path" else f"@reproq-test-{os.getpid()}")
    yield listening
    listening.socket.close()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Log:
    return set_up(stream=stream)


def test_service_manager_sends_ready_alive_and_stopping(manager: Manager, log: Log) -> None:
    """READY and STOPPING are sent once each; WATCHDOG messages have the status."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000", "PATH": "/bin"}
    reports = ServiceManager.adopt(environ, log)
    reports.ready("working")
    reports.ready("working")
    reports.alive(lambda: "busy\nfeeding")
    reports.stopping("bye")
    reports.stopping("bye")
    assert manager.received() == [
        "READY=1\nSTATUS=working",
        "WATCHDOG=1\nSTATUS=busy feeding",
        "STOPPING=1\nSTATUS=bye",
    ]
    assert environ == {"PATH": "/bin"}  # a child must not report in our name


def test_service_manager_reports_twice_per_watchdog_interval(manager: Manager, log: Log) -> None:
    """A caller that waits at most `pause` between calls reports twice per watchdog interval, not more often."""
    reports = ServiceManager.adopt({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}, log)
    assert 2 * reports.pause <= 0.4 / 2
    for _ in range(1000):
        reports.alive(lambda: "")
    assert len(manager.received()) == 1


@pytest.mark.parametrize("watched", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}])
def test_service_manager_without_watchdog_sends_the_status_only(
    manager: Manager, log: Log, watched: dict[str, str]
) -> None:
    """Without a watchdog, or with one for another process, only the status is sent."""
    reports = ServiceManager.adopt({"NOTIFY_SOCKET": manager.address, **watched}, log)
    reports.alive(lambda: "working")
    assert manager.received() == ["STATUS=working"]


def test_service_manager_accepts_a_watchdog_for_our_pid(manager: Manager, log: Log) -> None:
    """The watchdog's pid names this process."""
    watched = {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}
    ServiceManager.adopt({"NOTIFY_SOCKET": manager.address, **watched}, log).alive(lambda: "")
    assert manager.received() == ["WATCHDOG=1\nSTATUS="]


def test_service_manager_without_socket_sends_nothing(log: Log) -> None:
    """No NOTIFY_SOCKET: no message, and no call for a status."""
    reports = ServiceManager.adopt({"WATCHDOG_USEC": "60000000"}, log)
    reports.ready("working")
    reports.alive(lambda: pytest.fail("called for a status that has no reader"))
    reports.stopping("bye")


def test_service_manager_that_is_gone_is_logged_once(tmp_path: Path, log: Log, stream: io.StringIO) -> None:
    """A socket that is not there is logged once in a row, and the work goes on."""
    reports = ServiceManager.adopt({"NOTIFY_SOCKET": str(tmp_path / "gone")}, log)
    reports.ready("working")
    reports.stopping("bye")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["notify_failed"]


def test_service_manager_that_does_not_read_does_not_block(manager: Manager, log: Log, stream: io.StringIO) -> None:
    """A full socket does not block the caller."""
    reports = ServiceManager.adopt({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4"}, log)
    for _ in range(5000):
        reports.alive(lambda: "x" * 1000)
    assert stream.getvalue().count("notify_failed") >= 1
