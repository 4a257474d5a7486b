"""Validates the constraints that the step before added, in a transaction of its own: others read and write meanwhile.

A rollback has nothing to undo: the step before drops them.
"""

import random
import time

from yoyo import step

__depends__ = {"0003_reproq_adopted_rows"}
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
TABLES = ["task_runs", "workflow_runs", "periodic_tasks"]


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(
        "select c.relname, quote_ident(k.conname) from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " where c.relnamespace = quote_ident(current_schema())::regnamespace and c.relname = any (%s)"
        " and not k.convalidated and k.contype in ('c', 'f') order by 1, 2",
        [TABLES],
    )
    for table, name in cursor.fetchall():
        cursor.execute(f"alter table {table} validate constraint {name}")


def retried(work):
    """`work`, which waits a second at most for a lock, since all who write wait behind it, and is then repeated."""

    def run(connection):
        cursor = connection.cursor()
        cursor.execute("savepoint reproq_step")
        for is_last in (False,) * 14 + (True,):
            cursor.execute(PATH)
            cursor.execute("set local lock_timeout = '1s'")
            try:
                work(connection)
                return
            except Exception as error:
                if is_last or getattr(error, "sqlstate", None) not in ("55P03", "40P01"):
                    raise
                cursor.execute("rollback to savepoint reproq_step")
                time.sleep(random.uniform(0.5, 1.5))

    return run


step(retried(apply), lambda connection: None)
