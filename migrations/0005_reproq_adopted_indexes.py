"""Builds the indexes that adopted tables lack, one by one and concurrently: others read and write meanwhile.

Not in a transaction. What a broken run left half built is dropped and built again.
"""

import re
from pathlib import Path

from yoyo import step

__depends__ = {"0004_reproq_adopted_checks"}
__transactional__ = False
SQL = Path(__file__).resolve().parents[1] / "sql"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', false)"
TABLES = ("task_runs", "workflow_runs")
CREATE = re.compile(r"^create (unique )?index (\w+) on (.*?);$", re.MULTILINE | re.DOTALL)


def table_file(table):
    """The text of sql/tables/TABLE.sql: as first released; before that, as it is."""
    for released in SQL.glob("released/*.sql"):
        parts = re.split(r"^-- file: (\S+)\n", released.read_text(), flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[f"tables/{table}.sql"]
    return (SQL / "tables" / f"{table}.sql").read_text()


def indexes(table):
    """Name, 'unique ' or '', and the rest of each index in the table's file."""
    text = table_file(table)
    return [(match[2], match[1] or "", match[3]) for match in CREATE.finditer(text)]


def adopted_names(cursor, kind):
    cursor.execute("select to_regclass('_reproq_adopted') is not null")
    if not cursor.fetchone()[0]:
        return set()
    cursor.execute("select relation, name from _reproq_adopted where kind = %s", [kind])
    return set(cursor.fetchall())


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    adopted = adopted_names(cursor, "table")
    for table in TABLES:
        if (table, "") in adopted:
            for name, unique, rest in indexes(table):
                cursor.execute("select indisvalid from pg_index where indexrelid = to_regclass(%s)", [name])
                if cursor.fetchone() == (False,):
                    cursor.execute(f"drop index concurrently {name}")
                cursor.execute(f"create {unique}index concurrently if not exists {name} on {rest}")


def rollback(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    adopted, there_before = adopted_names(cursor, "table"), adopted_names(cursor, "index")
    for table in TABLES:
        if (table, "") in adopted:
            for name, _, _ in indexes(table):
                if (table, name) not in there_before:
                    cursor.execute(f"drop index concurrently if exists {name}")


step(apply, rollback)
