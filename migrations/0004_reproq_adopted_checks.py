"""Validates the constraints that the step before added, in a transaction of its own: others read and write meanwhile.

A rollback has nothing to undo: the step before drops them.
"""

from yoyo import step

__depends__ = {"0003_reproq_adopted_rows"}
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
TABLES = ["task_runs", "workflow_runs", "periodic_tasks"]


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    cursor.execute("set local lock_timeout = '10s'")
    cursor.execute(
        "select c.relname, quote_ident(k.conname) from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " where c.relnamespace = quote_ident(current_schema())::regnamespace and c.relname = any (%s)"
        " and not k.convalidated and k.contype in ('c', 'f') order by 1, 2",
        [TABLES],
    )
    for table, name in cursor.fetchall():
        cursor.execute(f"alter table {table} validate constraint {name}")


step(apply, lambda connection: None)
