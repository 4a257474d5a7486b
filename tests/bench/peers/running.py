"""Programs under measurement as processes: a database and a producer each, a worker when one is wanted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.peers.variants import OURS, PEERS_PYTHON, Variant
from tests.support.database import ROOT, Database, create_database, drop_database, install, wait_until

LONGEST = 180  # seconds for anything


class TimeReceiver:
    """A datagram socket that tasks send the time to."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "times")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(LONGEST)

    def receive(self, label: str) -> float:
        """The moment at which the task with this label ran."""
        while True:
            received, moment = self._socket.recv(1000).decode().rsplit(" ", 1)
            if received == label:
                return float(moment)

    def close(self) -> None:
        self._socket.close()


@dataclass
class Program:
    """One variant with its database and its producer."""

    variant: Variant
    database: Database
    versions: dict[str, str]
    _producer: subprocess.Popen[str]

    def call(self, name: str, *arguments: object) -> dict[str, Any]:
        """What the producer answers: began, seconds, result."""
        assert self._producer.stdin is not None
        self._producer.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._producer.stdin.flush()
        return _answer(self._producer)

    def settle(self) -> None:
        """Leave the database as autovacuum and the checkpointer would after a while."""
        with self.database.connect() as connection:
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")

    def counters(self) -> tuple[int, int]:
        """Bytes of WAL that the server has written, and commits in this database. Sessions count at their end."""
        query = """
            select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'), d.xact_commit
            from pg_stat_database d where d.datname = current_database()
        """
        with self.database.connect() as connection:
            wal, commits = connection.execute(query).fetchone() or (0, 0)
        return int(wal), int(commits)

    @contextmanager
    def workers(self, number: int = 1) -> Iterator[None]:
        """Worker processes, from their start to their end."""
        with ExitStack() as stack:
            for name in range(number):
                stack.enter_context(self._worker(f"{self.variant.name}-{name}".replace(" ", "-")))
            yield

    @contextmanager
    def _worker(self, name: str) -> Iterator[None]:
        process = subprocess.Popen(
            self.variant.worker(self.database.dsn, name),
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield
            assert process.poll() is None, f"{name} has ended with {process.returncode}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for_the_end(self) -> float:
        """Seconds until all tasks have ended."""
        began = time.monotonic()
        wait_until(lambda: self.call("left")["result"] == 0, what=f"{self.variant.name} is done", seconds=LONGEST)
        return time.monotonic() - began


@contextmanager
def running(server_dsn: str, variant: Variant) -> Iterator[Program]:
    """A variant with a new database, its schema, and its producer."""
    database = create_database(server_dsn, f"reproq_peers_{uuid.uuid4().hex[:12]}")
    try:
        if variant.program == OURS:
            install(database)
        python = sys.executable if variant.program == OURS else PEERS_PYTHON
        command = [python, "-m", f"tests.bench.peers.{variant.program}", database.dsn, "producer"]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as producer:  # leaving closes stdin, which ends it
            program = Program(variant, database, _answer(producer), producer)
            _check_all_is_logged(database)
            yield program
    finally:
        drop_database(server_dsn, database.name)


@contextmanager
def a_redis(folder: Path, fsync: str) -> Iterator[str | None]:
    """The version of a Redis on a socket in the folder, named by BENCH_REDIS; None where it is not installed.

    `always`: it syncs its log to the disk before it answers, as PostgreSQL does at a commit.
    """
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    path = folder / "redis.sock"
    options = {"port": "0", "unixsocket": str(path), "dir": str(folder), "save": "", "appendonly": "yes",
               "appendfsync": fsync}  # fmt: skip
    command = [program, *(word for name, value in options.items() for word in (f"--{name}", value))]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(path.exists, what="Redis listens")
            os.environ["BENCH_REDIS"] = str(path)
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            yield version.split("v=")[1].split()[0]
        finally:
            process.terminate()


def _answer(producer: subprocess.Popen[str]) -> dict[str, Any]:
    assert producer.stdout is not None
    line = producer.stdout.readline()
    assert line, f"the producer has ended: {producer.args!r}"
    answer: dict[str, Any] = json.loads(line)
    return answer


def _check_all_is_logged(database: Database) -> None:
    """No program may win by a table that a crash empties."""
    with psycopg.connect(database.dsn) as connection:
        query = "select relname from pg_class where relpersistence = 'u'"
        unlogged = [name for (name,) in connection.execute(query)]
    assert unlogged == [], f"unlogged tables: {unlogged}"
