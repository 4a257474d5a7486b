"""The health check of a container, against real workers."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from reproq_listen.db.roles import grant
from tests.support.commands import run_here
from tests.support.database import ROOT, Database
from tests.support.logins import login
from tests.support.workers import WorkerProcess


def health(*flags: str) -> tuple[int, bool]:
    """Exit code and verdict of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "reproq_listen", "health", "--output", "json", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, bool(json.loads(done.stdout)["healthy"])


@pytest.fixture
def port() -> int:
    """A port that is free now."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return int(holder.getsockname()[1])


def test_health_worker_with_http_is_asked_itself(database: Database, port: int) -> None:
    """Alive even if it refuses health for a token that health does not have; not if it is stopped."""
    address = ("--metrics-addr", f"127.0.0.1:{port}")
    assert health(*address) == (1, False)
    with WorkerProcess(database.dsn, *address, "--metrics-auth-token", "a-long-enough-token") as worker:
        worker.ready()
        assert health(*address) == (0, True)
        assert health("--metrics-port", str(port)) == (0, True)
        worker.signal(signal.SIGSTOP)
        assert health(*address) == (1, False)
        worker.signal(signal.SIGCONT)


def test_health_worker_on_all_interfaces_of_both_families(database: Database, port: int) -> None:
    """[::] serves IPv4, too, as in the Go program; health finds it, with and without the address."""
    with WorkerProcess(database.dsn, "--metrics-addr", f"[::]:{port}").ready():
        assert health("--metrics-addr", f"[::]:{port}") == (0, True)
        assert health("--metrics-addr", f"127.0.0.1:{port}") == (0, True)


def test_health_worker_that_asks_for_client_certificates_is_known_by_its_handshake(
    database: Database, port: int, tmp_path: Path
) -> None:
    """health has no certificate and gets no page. Plain HTTP is no handshake, and a frozen worker makes none."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    chain, key, ca = (str(tmp_path / name) for name in ("chain.pem", "key.pem", "ca.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    address = ("--metrics-addr", f"127.0.0.1:{port}")
    tls = (*address, "--metrics-tls-cert", chain, "--metrics-tls-key", key)
    mutual = (*tls, "--metrics-tls-client-ca", ca)
    assert health(*mutual) == (1, False)
    with WorkerProcess(database.dsn, *tls) as worker:
        worker.ready()
        assert health(*tls) == (0, True)
    with WorkerProcess(database.dsn, *address) as worker:
        worker.ready()
        assert health(*mutual) == (1, False)
    with WorkerProcess(database.dsn, *mutual) as worker:
        worker.ready()
        # No DSN is given: the worker answers, not the database.
        assert health(*mutual) == (0, True)
        assert not is_served(port, ca, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        worker.signal(signal.SIGSTOP)
        assert health(*mutual) == (1, False)
        worker.signal(signal.SIGCONT)
        assert health(*mutual) == (0, True)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert worker.plain == []


def is_served(port: int, ca: str, request: bytes) -> bool:
    """Whether a client without a certificate gets a byte of any page."""
    context = ssl.create_default_context(cafile=ca)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(request)
            return connection.recv(1) != b""
    except OSError:
        return False


def test_health_worker_without_http_is_known_by_its_heartbeat(database: Database) -> None:
    """By its name, else by this host's; as the worker's own role; not when it was last seen too long ago."""
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, "reproq_worker") as dsn:
        assert health("--dsn", dsn) == (1, False)
        with WorkerProcess(dsn, "--worker-id", "w1") as worker:
            worker.ready()
            assert health("--dsn", dsn) == (0, True)
            assert health("--dsn", dsn, "--worker-id", "w1") == (0, True)
            assert health("--dsn", dsn, "--worker-id", "w2") == (1, False)
        with database.connect() as connection:
            connection.execute("update reproq_workers set last_seen_at = last_seen_at - interval '30 s'")
        assert health("--dsn", dsn) == (0, True)
        assert health("--dsn", dsn, "--within", "20s") == (1, False)
        with database.connect() as connection:
            connection.execute("update reproq_workers set hostname = 'elsewhere', last_seen_at = now()")
        assert health("--dsn", dsn) == (1, False)


def test_health_database_that_refuses_to_answer_names_the_remedy(database: Database, empty_database: Database) -> None:
    """Before migrate, and as a role without rights: not healthy, in the words of all commands."""
    ran = run_here("health", "--dsn", empty_database.dsn)
    assert (ran.code, "reproq-listen migrate --dsn" in ran.out) == (1, True)
    with login(database) as dsn:
        ran = run_here("health", "--dsn", dsn)
        assert (ran.code, "grant reproq_worker to" in ran.out) == (1, True)
    grant(database.dsn, schema=None, setting="--dsn", django=False, dry_run=False)
    with login(database, "reproq_producer") as dsn:
        ran = run_here("health", "--dsn", dsn)
        assert (ran.code, "grants --help" in ran.out) == (1, True)


def test_health_database_that_is_away_is_not_healthy(port: int) -> None:
    """Without HTTP nothing else can be known; the result is an answer, not a crash."""
    assert health("--dsn", f"host=127.0.0.1 port={port} dbname=x") == (1, False)
