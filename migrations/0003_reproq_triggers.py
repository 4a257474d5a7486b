"""The first release of every trigger."""

from pathlib import Path

from yoyo import step

__depends__ = {"0002_reproq_functions"}
RELEASED = Path(__file__).resolve().parents[1] / "sql" / "released"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"
TRIGGERS = (  # table, trigger
    ("task_runs", "reproq_1_path"),
    ("task_runs", "reproq_2_normalise_insert"),
    ("task_runs", "reproq_2_normalise_update"),
    ("task_runs", "reproq_3_label"),
    ("task_runs", "reproq_4_park"),
    ("reproq_queue_controls", "reproq_control_ring"),
    ("task_runs", "reproq_deleted"),
    ("task_runs", "reproq_ring_insert"),
    ("task_runs", "reproq_ring_update"),
    ("task_runs", "reproq_straggler"),
    ("task_runs", "reproq_written_by_others"),
    ("periodic_tasks", "reproq_schedule_1_made"),
    ("periodic_tasks", "reproq_schedule_1_written"),
    ("periodic_tasks", "reproq_schedule_ring_insert"),
    ("periodic_tasks", "reproq_schedule_ring_update"),
)


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    cursor.execute("set local lock_timeout = '10s'")
    for _, name in TRIGGERS:
        cursor.execute((RELEASED / f"{name}.v1.sql").read_text())


def rollback(connection):
    cursor = connection.cursor()
    cursor.execute(PATH)
    cursor.execute("set local lock_timeout = '10s'")
    for table, name in reversed(TRIGGERS):
        cursor.execute("select to_regclass(%s) is not null", [table])
        if cursor.fetchone()[0]:
            cursor.execute(f"drop trigger if exists {name} on {table}")


step(apply, rollback)
