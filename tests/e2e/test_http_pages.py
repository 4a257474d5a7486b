"""The pages of a real worker while it works, drains, and has no database."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from reproq_listen.embedded.server import EmbeddedServer
from reproq_listen.http import metric_definitions
from tests.support.database import Database, wait_until
from tests.support.pages import metric
from tests.support.workers import WorkerProcess, enqueue, pids_in, port_of, row, wait_for_status

ADDRESS = ("--metrics-addr", "127.0.0.1:0")


def get(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def failures(port: int) -> set[str]:
    """What /readyz names; empty when it says ready."""
    status, body = get(port, "/readyz")
    said = json.loads(body)
    assert (status == 200) == said["ready"] == (not said["failures"])
    return set(said["failures"])


def page_of(port: int) -> bytes:
    status, body = get(port, "/metrics")
    assert status == 200
    return body


class EventClient:
    """A client of /events."""

    def __init__(self, port: int, query: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.sendall(f"GET /events{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self._text = b""
        while b"\r\n\r\n" not in self._text:
            self._text += self.socket.recv(4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def events(self, count: int) -> list[dict[str, Any]]:
        """The events received, as soon as there are `count`."""
        while len(found := re.findall(rb"^data: (.*)$", self._text, re.MULTILINE)) < count:
            self._text += self.socket.recv(65536)
        return [json.loads(line) for line in found]


def test_metrics_count_tasks(database: Database) -> None:
    """Every metric of the table is on the page, and tasks move the contract's counters and histograms."""
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker:
        port = port_of(worker)
        done = [enqueue(database, "add", 1, n) for n in range(3)]
        failed = enqueue(database, "fail", max_attempts=1)
        for result_id in done:
            wait_for_status(database, result_id, "SUCCESSFUL")
        wait_for_status(database, failed, "FAILED")
        wait_until(lambda: get(port, "/metrics")[1].count(b'status="success"') >= 2, what="successes counted")
        page = page_of(port)
    shown = set(re.findall(r"^# TYPE (\S+) ", page.decode(), re.MULTILINE))
    assert shown == {metric.name for metric in metric_definitions.ALL}
    assert metric(page, "reproq_tasks_processed_total", status="success", queue="default") == 3
    assert metric(page, "reproq_tasks_completed_total", queue="default", status="failure") == 1
    assert metric(page, "reproq_tasks_claimed_total", queue="default") == 4
    for name in ("exec", "queue_wait"):
        assert metric(page, f"reproq_{name}_duration_seconds_count", queue="default") == 4
    for operation in ("claim", "metrics"):  # a worker's work, and what the page itself asks
        assert metric(page, "reproq_db_operation_duration_seconds_count", operation=operation), operation
    assert metric(page, "reproq_claim_duration_seconds_count", queue="default")
    assert metric(page, "reproq_listener_verified") == 1
    assert metric(page, "reproq_notifications_total", channel="reproq_ready")
    assert metric(page, "reproq_workers") == 1
    assert metric(page, "reproq_concurrency_limit") == metric(page, "reproq_worker_concurrency") == 10
    opened, memory = (
        metric(page, f"reproq_{name}") for name in ("db_pool_connections_in_use", "worker_mem_usage_bytes")
    )
    assert opened is not None
    assert opened >= 2
    assert memory is not None
    assert 1 << 24 < memory < 1 << 27


def test_http_worker_is_ready_when_all_its_parts_work(database: Database, tmp_path: Path) -> None:
    """/readyz is 200 then; after SIGTERM it is 503 and names draining, while /livez is still 200."""
    pids = tmp_path / "pids"
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker:
        port = port_of(worker)
        wait_until(lambda: failures(port) == set(), what="ready")
        enqueue(database, "note_and_sleep", str(pids), 60)
        pids_in(pids)
        worker.signal(signal.SIGTERM)
        wait_until(lambda: failures(port) == {"draining"}, what="not ready, and why")
        assert get(port, "/livez") == (200, b"ok")
        assert get(port, "/healthz") == (200, b"ok")
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_without_its_database_a_worker_lives_and_is_not_ready(own_server: tuple[EmbeddedServer, Database]) -> None:
    """/livez is 200; /healthz is 503; /readyz names the database and the listener; the age of metrics grows."""
    server, database = own_server
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker:
        port = port_of(worker)
        wait_until(lambda: failures(port) == set(), what="ready")
        age = metric(page_of(port), "reproq_fleet_numbers_age_seconds")
        server.stop("immediate")
        wait_until(lambda: {"database", "listener"} <= failures(port), what="not ready, and why")
        assert get(port, "/livez") == (200, b"ok")
        assert get(port, "/healthz") == (503, b"unhealthy")
        later = metric(page_of(port), "reproq_fleet_numbers_age_seconds")
        assert age is not None
        assert later is not None
        assert later > age
        server.start()
        wait_until(lambda: failures(port) == set(), what="ready again", seconds=20)
        assert get(port, "/healthz") == (200, b"ok")


def test_another_contract_is_named(database: Database) -> None:
    """A schema that was migrated past this worker."""
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker:
        port = port_of(worker)
        wait_until(lambda: failures(port) == set(), what="ready")
        with database.connect() as connection:
            connection.execute(
                "create or replace function reproq_contract(out oldest integer, out newest integer) language sql"
                " as 'select 99, 99'"
            )
        wait_until(lambda: failures(port) == {"contract"}, what="the contract named")
        assert get(port, "/healthz")[0] == 503


def test_http_heartbeat_that_is_refused_is_named(database: Database) -> None:
    """The claim loop turns and the database answers; until the heartbeat works again the worker is not ready."""
    with WorkerProcess(database.dsn, *ADDRESS, "--heartbeat-seconds", "0.2") as worker:
        worker.ready()
        port = port_of(worker)
        wait_until(lambda: failures(port) == set(), what="ready")
        with database.connect() as connection:
            connection.execute("alter function reproq_heartbeat rename to away_heartbeat")
        wait_until(lambda: failures(port) == {"heartbeat"}, what="not ready, and why", seconds=15)
        assert get(port, "/livez") == (200, b"ok")
        assert get(port, "/healthz") == (200, b"ok")
        with database.connect() as connection:
            connection.execute("alter function away_heartbeat rename to reproq_heartbeat")
        wait_until(lambda: failures(port) == set(), what="ready again")


def test_http_claim_loop_that_hangs_is_named(database: Database) -> None:
    """Nothing is claimed despite notifications; the rest of the worker runs."""
    with WorkerProcess(database.dsn, *ADDRESS, program="tests.support.stuck_worker").ready() as worker:
        port = port_of(worker)
        wait_for_status(database, enqueue(database, "add", 1, 2), "SUCCESSFUL")
        worker.signal(signal.SIGUSR1)
        waiting = enqueue(database, "add", 3, 4)
        wait_until(lambda: failures(port) == {"claim_loop"}, what="not ready, and why")
        enqueue(database, "add", 5, 6)
        assert failures(port) == {"claim_loop"}
        assert get(port, "/livez") == (200, b"ok")
        assert row(database, waiting)["status"] == "READY"


def test_http_listener_without_notifications_is_named(database: Database) -> None:
    """It listens to another database: the worker polls, runs tasks, and /readyz names the listener."""
    other = psycopg.conninfo.make_conninfo(database.dsn, dbname="postgres")
    with WorkerProcess(database.dsn, *ADDRESS, "--listen-dsn", other) as worker:
        port = port_of(worker)
        worker.wait_for("listener_down")
        assert failures(port) == {"listener"}
        wait_for_status(database, enqueue(database, "add", 1, 2), "SUCCESSFUL")


def test_events_of_tasks_are_streamed(database: Database) -> None:
    """Started and ended, with the contract's fields and no payload; filtered by queue and task; the past first."""
    with WorkerProcess(database.dsn, *ADDRESS, "--queues", "a,b").ready() as worker:
        port = port_of(worker)
        with EventClient(port) as everything, EventClient(port, "?queue=b") as only_b:
            first = enqueue(database, "say", "hunter2", queue_name="a")
            wait_for_status(database, first, "SUCCESSFUL")
            second = enqueue(database, "fail", queue_name="b", max_attempts=1)
            assert [event["type"] for event in only_b.events(2)] == ["task_started", "task_failed"]
            events = everything.events(4)
            assert {event["task_id"] for event in events} == {first, second}
            assert set(events[0]) == {"ts", "level", "type", "msg", "queue", "task_id", "worker_id", "metadata"}
            assert "hunter2" not in json.dumps(events)
            assert "on purpose" not in json.dumps(events)
            with EventClient(port, f"?task_id={first}") as late:
                assert [event["type"] for event in late.events(2)] == ["task_started", "task_success"]
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            assert everything.socket.recv(65536) == b"0\r\n\r\n"  # the end of the stream


def test_http_every_type_of_event_is_streamed(database: Database, tmp_path: Path) -> None:
    """The eight of the contract, each from a task that ends that way, with its id."""
    pids = tmp_path / "pids"
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker, EventClient(port_of(worker)) as everything:
        enqueued = {
            "task_success": enqueue(database, "add", 1, 2),
            "task_failed": enqueue(database, "fail", max_attempts=1),
            "task_retry": enqueue(database, "fail", max_attempts=2),
            "task_invalid": enqueue(database, "nul"),
            "task_infra_error": enqueue(database, "die", max_attempts=1),
            "task_cancelled": enqueue(database, "note_and_sleep", str(pids), 60),
        }
        with database.connect() as connection:
            found = connection.execute("select reproq_enqueue('os.getpid')").fetchone()
            assert found is not None
            enqueued["task_rejected"] = found[0]
            pids_in(pids)
            connection.execute("select reproq_cancel(%s)", [enqueued["task_cancelled"]])
        events = everything.events(2 * len(enqueued))
    ended = {event["type"]: event["task_id"] for event in events if event["type"] != "task_started"}
    assert ended == enqueued
    started = {event["task_id"] for event in events if event["type"] == "task_started"}
    assert started == set(enqueued.values())


def test_pages_cost_memory_only_where_they_are_served(database: Database) -> None:
    """Idle: at most 45 MiB without pages and 55 MiB with them, scraped."""
    for flags, most in ((), 45 << 20), (ADDRESS, 55 << 20):
        with WorkerProcess(database.dsn, *flags).ready() as worker:
            if flags:
                for path in ("/metrics", "/readyz", "/healthz", "/livez"):
                    assert get(port_of(worker), path)[0] == 200
            status = Path(f"/proc/{worker.pid}/status").read_text()
            (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
            assert int(kilobytes) << 10 <= most


def test_http_probe_does_not_wait_for_the_numbers_of_the_fleet(database: Database) -> None:
    """/healthz stays green while they are counted for seconds."""
    with database.connect() as connection:
        (text,) = connection.execute("select pg_get_functiondef('reproq_metrics'::regproc)").fetchone() or ("",)
        body = "return query select 'x'::text, ''::text, 1.0::double precision from pg_sleep(4)"
        connection.execute(re.sub(r"\nbegin\n.*\nend\n", f"\nbegin\n{body};\nend\n", text, flags=re.DOTALL).encode())
        connection.execute("grant execute on function reproq_metrics to public")
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker:
        port = port_of(worker)
        page_of(port)
        assert get(port, "/healthz") == (200, b"ok")


def test_low_memory_mode_serves_nothing(database: Database, monkeypatch: Any) -> None:
    """LOW_MEMORY_MODE=1 wins over any address; REPROQ_MEMORY_LOG_INTERVAL logs what is in use."""
    monkeypatch.setenv("LOW_MEMORY_MODE", "1")
    monkeypatch.setenv("REPROQ_MEMORY_LOG_INTERVAL", "1s")
    monkeypatch.setenv("REPROQ_PROCESS_ROLE", "batch")
    with WorkerProcess(database.dsn, *ADDRESS).ready() as worker:
        worker.wait_for("memory", times=2, process_role="batch")
        assert not worker.seen("http_started")


def test_http_taken_port_ends_the_start_with_its_name(database: Database) -> None:
    """Exit 2, with the flag and a hint."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with WorkerProcess(database.dsn, "--metrics-addr", f"127.0.0.1:{port}") as worker:
            assert worker.wait() == 2
    assert any(f"--metrics-addr (--metrics-port): 127.0.0.1, port {port}: " in line for line in worker.plain)
