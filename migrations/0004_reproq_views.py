"""The first release of every view."""

from pathlib import Path

from yoyo import step

__depends__ = {"0003_reproq_triggers"}
RELEASED = Path(__file__).resolve().parents[1] / "sql" / "released"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
VIEWS = (
    "reproq_queues",
    "reproq_failures",
    "reproq_limits",
    "reproq_live_workers",
    "reproq_dead_workers",
    "reproq_parked",
    "reproq_tasks",
    "reproq_schedules",
)


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    for name in VIEWS:
        cursor.execute((RELEASED / f"{name}.v1.sql").read_text())


def rollback(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    for name in reversed(VIEWS):
        cursor.execute(f"drop view if exists {name}")


step(apply, rollback)
