"""The server that benches run on, and what a report says about it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

import reproq_listen
from reproq_listen.db.dsn import conninfo
from reproq_listen.embedded.server import EmbeddedServer

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "jit", "work_mem")


@contextmanager
def bench_server() -> Iterator[str]:
    """A superuser's DSN: of REPROQ_TEST_DSN, else of an embedded server with its default, durable settings."""
    given = os.environ.get("REPROQ_TEST_DSN")
    if given:
        yield conninfo(given, "REPROQ_TEST_DSN")
        return
    with EmbeddedServer() as server:
        yield server.dsn()


def circumstances(server_dsn: str) -> dict[str, Any]:
    """Versions, server settings that matter, and the machine."""
    with psycopg.connect(server_dsn) as connection:
        settings = connection.execute(
            "select name, current_setting(name) from unnest(%s::text[]) as s (name)", [list(SETTINGS)]
        ).fetchall()
        [(version,)] = connection.execute("select current_setting('server_version')").fetchall()
    return {
        "versions": {
            "reproq_listen": reproq_listen.__version__,
            "postgresql": version,
            "psycopg": psycopg.__version__,
            "python": platform.python_version(),
        },
        "settings": dict(settings),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "load": os.getloadavg()[0]},
    }
