"""The tables as Reproq Django's own migration makes them, and what its `migrate-worker` command does afterwards.

Tables, indexes and constraints are restated by hand from a listing of a database that they had made; the rows
(`django_rows.json`) are from the same one. The listing shows no body of `reproq_task_path_from_spec`: that one is ours,
from the contract's word that it fills task_path from spec_json.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

HERE = Path(__file__).parent


def create_tables(connection: psycopg.Connection) -> None:
    """What `manage.py migrate` leaves behind."""
    connection.execute((HERE / "django_tables.sql").read_bytes())


def migrate_worker(connection: psycopg.Connection) -> None:
    """What `manage.py reproq migrate-worker` does, on whatever is there."""
    connection.execute((HERE / "django_migrate_worker.sql").read_bytes())


def add_model_indexes(connection: psycopg.Connection) -> None:
    """The indexes of task_runs that Django's model declares, on a table of ours: an adopted table keeps them."""
    text = (HERE / "django_tables.sql").read_text()
    for name, rest in re.findall(r"^create index (\w+) on task_runs (.*?);", text, re.DOTALL | re.MULTILINE):
        connection.execute(f"create index if not exists {name} on task_runs {rest}".encode())


def rows() -> list[dict[str, Any]]:
    """Rows of task_runs as its backend writes them: plain, keyed, with context, chains, chord members and callbacks."""
    loaded: list[dict[str, Any]] = json.loads((HERE / "django_rows.json").read_text())
    return loaded


def insert(connection: psycopg.Connection, row: dict[str, Any]) -> int:
    """Insert as Django does: every column of its model, none of ours."""
    values = {"created_at": row["enqueued_at"], "updated_at": row["enqueued_at"], **row}
    query = sql.SQL("insert into task_runs ({}) values ({}) returning result_id").format(
        sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
    )
    jsonb = ("spec_json", "worker_ids", "return_json", "errors_json", "metadata_json")
    params = [Jsonb(value) if name in jsonb and value is not None else value for name, value in values.items()]
    inserted = connection.execute(query, params).fetchone()
    assert inserted is not None
    return int(inserted[0])
