"""Large backlogs of tasks, inserted fast: mostly without triggers, so each row has all its columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

import psycopg
from psycopg import sql

READY: dict[str, LiteralString] = {
    "spec_json": """'{"v": 1, "task_path": "app.tasks.run", "args": [], "kwargs": {}}'::jsonb""",
    "spec_hash": "replace(gen_random_uuid()::text, '-', '')",
    "task_path": "'app.tasks.run'",
    "enqueued_at": "now() - interval '1 hour' + n * interval '1 microsecond'",
}
RUNNING: dict[str, LiteralString] = {
    **READY,
    "status": "'RUNNING'",
    "attempts": "1",
    "lease_token": "md5(n::text)::uuid",  # known to tests
    "leased_until": "now() + interval '1 hour'",
    "leased_by": "'worker'",
    "started_at": "now()",
    "last_attempted_at": "now()",
}


def add_backlog(
    connection: psycopg.Connection,
    number: int,
    columns: Mapping[str, LiteralString],
    *,
    after: int = 0,
    triggers: bool = False,
) -> None:
    """Insert `number` rows into task_runs and commit; a column's value is an SQL expression over n = after + 1, ...

    Without `triggers`, none fires and no foreign key is checked. Needs a superuser.
    """
    query = sql.SQL("insert into task_runs ({}) select {} from generate_series({}, {}) as n").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(map(sql.SQL, columns.values())),
        sql.Literal(after + 1),
        sql.Literal(after + number),
    )
    with connection.transaction():
        if not triggers:
            connection.execute("set local session_replication_role = replica")
        connection.execute(query)
