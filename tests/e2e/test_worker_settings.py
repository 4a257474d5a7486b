"""Settings of the worker that show in what it does: each is set the way its users set it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.database import Database
from tests.support.pages import Answer, parse, read_all
from tests.support.workers import WorkerProcess, enqueue, port_of, row, wait_for_status


def get(port: int, path: str, token: str = "") -> Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        line = f"Authorization: Bearer {token}\r\n" if token else ""
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{line}\r\n".encode())
        return parse(read_all(connection))


def test_worker_exec_timeout(database: Database) -> None:
    """The limit of every task, whatever its own timeout is."""
    with WorkerProcess(database.dsn, "--exec-timeout=300ms", "--grace-seconds=0.2").ready():
        result_id = enqueue(database, "note_and_sleep", "/dev/null", 60, timeout_seconds=900, max_attempts=1)
        found = wait_for_status(database, result_id, "FAILED")
    assert found["errors_json"][0]["kind"] == "timeout"


@pytest.mark.parametrize(("flags", "first"), [((), "new"), (("--priority-aging-factor=1",), "old"), (("0",), "new")])
def test_worker_priority_aging_factor(
    database: Database, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], first: str
) -> None:
    """A task that has waited 100 s goes before one of five steps more, with a factor of 1; not with 60, nor with 0."""
    old, new = enqueue(database, "add", 1, 1), enqueue(database, "add", 2, 2, priority=5)
    with database.connect() as session:
        session.execute("update task_runs set enqueued_at = now() - interval '100 seconds' where result_id = %s", [old])
    if flags == ("0",):
        monkeypatch.setenv("PRIORITY_AGING_FACTOR", "0")
        flags = ()
    with WorkerProcess(database.dsn, "--concurrency", "1", "--drain", *flags) as worker:
        assert worker.wait(15) == 0
    order = [event["task_id"] for event in worker.events if event["event"] == "task_started"]
    assert order == ([old, new] if first == "old" else [new, old])


def test_worker_queues_and_process_role(database: Database) -> None:
    """Only these queues are worked on; the role stands in every line of the log."""
    there, elsewhere = enqueue(database, "add", 1, 1, queue_name="b"), enqueue(database, "add", 1, 1)
    with WorkerProcess(database.dsn, "--queues", "a,b", "--process-role=batch", "--drain") as worker:
        assert worker.wait(15) == 0
    assert (row(database, there)["status"], row(database, elsewhere)["status"]) == ("SUCCESSFUL", "READY")
    assert {event.get("process_role") for event in worker.events} == {"batch"}


def test_worker_allowed_addresses(database: Database) -> None:
    """--metrics-allow-cidrs: 403 for the rest, token or not."""
    flags = ("--metrics-addr=127.0.0.1:0", "--metrics-allow-cidrs", "10.0.0.0/8", "--metrics-auth-token=right")
    with WorkerProcess(database.dsn, *flags) as worker:
        assert get(port_of(worker), "/metrics", "right").status == 403


def test_worker_limit_of_wrong_tokens(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token from a file, limit by variable, window and hosts by flag: 401, 401, then 429; the token is served."""
    (tmp_path / "token").write_text("right\n")
    monkeypatch.setenv("METRICS_AUTH_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("METRICS_AUTH_LIMIT", "2")
    monkeypatch.setenv("METRICS_ADDR", "127.0.0.1:0")
    with WorkerProcess(database.dsn, "--metrics-auth-window=1h", "--metrics-auth-max-entries", "1") as worker:
        port = port_of(worker)
        assert [get(port, "/metrics", "wrong").status for _ in range(3)] == [401, 401, 429]
        assert get(port, "/metrics", "right").status == 200


def test_worker_largest_payload_and_result(database: Database, tmp_path: Path) -> None:
    """max_payload_bytes and max_stdout_bytes of a file; a key without effect is warned about."""
    path = tmp_path / "reproq.yaml"
    path.write_text("worker:\n  max_payload_bytes: 1000\n  max_stdout_bytes: 500\n  max_attempts_default: 9\n")
    with WorkerProcess(database.dsn, "--config", str(path)).ready() as worker:
        fits = enqueue(database, "say", "x" * 300)
        spec = enqueue(database, "say", "x" * 2000, max_attempts=1)
        result = enqueue(database, "say", "x" * 600, max_attempts=1)
        assert wait_for_status(database, fits, "SUCCESSFUL")["return_json"] == "x" * 300
        kinds = [wait_for_status(database, each, "FAILED")["errors_json"][0]["kind"] for each in (spec, result)]
        assert worker.seen("config_warning")
    assert kinds == ["payload_too_large", "invalid_result"]
