"""Loads the functions, views and triggers of sql/ that no release has frozen in their present text.

Runs after the steps, each time: so a change that is not released reaches a database of a checkout. From a released
wheel it loads nothing, since there all texts are frozen.
"""

import random
import re
import time
from pathlib import Path

from yoyo import step

SQL = Path(__file__).resolve().parents[1] / "sql"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"


def frozen_texts():
    """The latest frozen text of each object, by its name."""
    texts = {}
    for first in SQL.glob("released/*.sql"):
        parts = re.split(r"^-- file: (\S+)\n", first.read_text(), flags=re.MULTILINE)
        texts |= {Path(name).stem: text for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    for folder in sorted(SQL.glob("released/*/"), key=lambda path: [int(part) for part in path.name.split(".")]):
        texts |= {path.stem: path.read_text() for path in folder.glob("*.sql")}
    return texts


def apply(connection):
    frozen = frozen_texts()
    names = re.findall(r"^\\ir ((?:functions|views|triggers)/\S+)$", (SQL / "install.sql").read_text(), re.MULTILINE)
    live = {name: (SQL / name).read_text() for name in names}
    cursor = connection.cursor()
    for name, text in live.items():
        if frozen.get(Path(name).stem) != text:
            cursor.execute(text)


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


step(retried(apply))
