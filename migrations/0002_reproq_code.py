"""The first release of every function, view and trigger, in the order of sql/install.sql.

Locks: share row exclusive on the tables, for an instant, when it makes the triggers.
"""

import random
import re
import time
from pathlib import Path

from yoyo import step

__depends__ = {"0001_reproq_tables"}
SQL = Path(__file__).resolve().parents[1] / "sql"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
CREATE = re.compile(r"^create or replace (function|view|trigger) (\w+)", re.MULTILINE)
TABLE = re.compile(r"^(?:before|after) [\w\s,]*? on (\w+)", re.MULTILINE)


def live_files():
    """Path and text of the files of sql/ as they are, in the order of install.sql."""
    names = re.findall(r"^\\ir (\S+)$", (SQL / "install.sql").read_text(), re.MULTILINE)
    return {name: (SQL / name).read_text() for name in names}


def files():
    """The same as the first release froze it; before that, as it is."""
    for released in SQL.glob("released/*.sql"):
        parts = re.split(r"^-- file: (\S+)\n", released.read_text(), flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))
    return live_files()


def apply(connection):
    cursor = connection.cursor()
    for name, text in files().items():
        if not name.startswith("tables/"):
            cursor.execute(text)


def rollback(connection):
    cursor = connection.cursor()
    # What post-apply.py loaded after the first release goes, too.
    for text in reversed((files() | live_files()).values()):
        created = CREATE.search(text)
        if created:
            kind, name = created.groups()
            drop(cursor, kind, name, text)


def drop(cursor, kind, name, text):
    if kind != "trigger":
        cursor.execute(f"drop {kind} if exists {name}")
        return
    table = TABLE.search(text)[1]
    cursor.execute("select to_regclass(%s) is not null", [table])
    if cursor.fetchone()[0]:
        cursor.execute(f"drop trigger if exists {name} on {table}")


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


step(retried(apply), retried(rollback))
