"""Puts the rows of adopted tables in order, then adds the constraints that the tables lack, NOT VALID.

Does nothing to tables that the first step made. Refuses, with the ids and RQ004, what only a person can decide.
Locks: access exclusive on task_runs while it mends rows that need it; the triggers, there already, keep
the rows in order that others write afterwards.
"""

import random
import re
import time
from pathlib import Path

from yoyo import step

__depends__ = {"0002_reproq_code"}
SQL = Path(__file__).resolve().parents[1] / "sql"
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"

REFUSE = """
do $$
declare
    v_found text;
begin
    select string_agg(format('%s (task %s)', d.lock_key, d.ids), '; ') into v_found
    from (select left(r.lock_key, 100) as lock_key, string_agg(r.result_id::text, ', ' order by r.result_id) as ids
          from task_runs r where r.status = 'RUNNING' and r.lock_key <> ''
          group by r.lock_key having count(*) > 1 order by 1 limit 20) d;
    if v_found is not null then
        raise exception 'several RUNNING tasks share a lock key: %', v_found using errcode = 'RQ004',
            hint = 'Stop the old workers and let them drain (SIGTERM), or give back what dead ones left behind with'
                   ' "manage.py reproq reclaim"; then migrate again.';
    end if;

    select string_agg(format('%s (%s)', d.result_id, d.reason), ', ') into v_found
    from (select r.result_id, case
              when r.status not in ('READY', 'RUNNING', 'WAITING', 'SUCCESSFUL', 'FAILED', 'CANCELLED')
                  then 'status ' || left(r.status, 30)
              when coalesce(r.task_path, '') = '' then 'no task_path'
              when octet_length(r.queue_name) > 512 then 'queue_name longer than 512 bytes'
              when octet_length(r.task_path) > 1024 then 'task_path longer than 1024 bytes'
              when not (isfinite(r.enqueued_at) and isfinite(coalesce(r.run_after, r.enqueued_at))
                   and isfinite(coalesce(r.leased_until, r.enqueued_at))
                   and isfinite(coalesce(r.expires_at, r.enqueued_at))) then 'infinite time'
          end as reason
          from task_runs r) d
    where d.reason is not null;
    if v_found is not null then
        raise exception 'tasks that no worker can run: %', left(v_found, 2000) using errcode = 'RQ004',
            hint = 'Correct or delete these rows of task_runs; then migrate again.';
    end if;
end $$
"""

# First of all, since with a NOT VALID check on it no other change to such a row would pass.
TASK_PATH = """
update task_runs r set task_path = r.spec_json ->> 'task_path'
where (r.task_path is null or r.task_path = '') and r.spec_json ->> 'task_path' <> ''
"""

# Each touches only the rows that need it.
REPAIRS = (
    # Of active duplicates the oldest keeps the hash.
    """
    update task_runs r set spec_hash = replace(gen_random_uuid()::text, '-', '')
    from (select a.result_id, row_number() over (partition by a.spec_hash order by a.result_id) as place
          from task_runs a where a.status in ('READY', 'RUNNING')) d
    where d.result_id = r.result_id and d.place > 1
    """,
    # A RUNNING row has a fence and an end of its lease. One without an end gets one that has passed: reclaim takes it.
    """
    update task_runs r
    set lease_token = coalesce(r.lease_token, gen_random_uuid()), leased_until = coalesce(r.leased_until, now())
    where r.status = 'RUNNING' and (r.lease_token is null or r.leased_until is null)
    """,
    """
    update task_runs r set lease_token = null, leased_until = null
    where r.status <> 'RUNNING' and (r.lease_token is not null or r.leased_until is not null)
    """,
    """
    update task_runs r set finished_at = coalesce(r.failed_at, r.last_attempted_at, r.updated_at, now())
    where r.status in ('SUCCESSFUL', 'FAILED', 'CANCELLED') and r.finished_at is null
    """,
    """
    update task_runs r set finished_at = null
    where r.status in ('READY', 'RUNNING', 'WAITING') and r.finished_at is not null
    """,
    """
    update task_runs r set parent_id = null
    where r.parent_id is not null and not exists (select from task_runs p where p.result_id = r.parent_id)
    """,
)

# Columns that must hold a value, and the one that stands in for a null.
FILLED = {
    "task_runs": {
        "backend_alias": "'default'",
        "queue_name": "'default'",
        "priority": "0",
        "status": "'READY'",
        "enqueued_at": "now()",
        "attempts": "0",
        "max_attempts": "3",
        "timeout_seconds": "900",
        "concurrency_limit": "0",
        "wait_count": "0",
        "worker_ids": "'[]'",
        "errors_json": "'[]'",
        "metadata_json": "'{}'",
        "created_at": "now()",
        "updated_at": "now()",
        "cancel_requested": "false",
        "lost_count": "0",
        "snooze_count": "0",
        "limit_key": "''",
        "blocked_on": "''",
        "revision": "0",
        "notify_end": "false",
    },
    "workflow_runs": {
        "success_count": "0",
        "failure_count": "0",
        "status": "'RUNNING'",
        "created_at": "now()",
        "updated_at": "now()",
        "revision": "0",
    },
    "rate_limits": {"last_refilled_at": "now()"},
    "reproq_queue_controls": {"paused": "false", "created_at": "now()", "updated_at": "now()"},
    "reproq_workers": {"queues": "'[]'", "started_at": "now()", "last_seen_at": "now()"},
    "periodic_tasks": {
        "payload_json": "'{}'",
        "queue_name": "'default'",
        "priority": "0",
        "max_attempts": "3",
        "concurrency_limit": "0",
        "enabled": "true",
        "created_at": "now()",
        "updated_at": "now()",
        "time_zone": "'UTC'",
        "misfire": "'one'",
        "overlap": "'allow'",
        "planned": "false",
        "options_json": "'{}'",
    },
}

# The checks stand in the tables' own files, one after another, each at the start of a line.
CHECK = re.compile(r"^    constraint (\w+)\s+(check \(.*?\))(?:,$|\n\);)", re.MULTILINE | re.DOTALL)
PARENT = {"task_runs_parent_id_fkey": "foreign key (parent_id) references task_runs (result_id) on delete set null"}


def table_file(table):
    """The text of sql/tables/TABLE.sql: as first released; before that, as it is."""
    for released in SQL.glob("released/*.sql"):
        parts = re.split(r"^-- file: (\S+)\n", released.read_text(), flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[f"tables/{table}.sql"]
    return (SQL / "tables" / f"{table}.sql").read_text()


def constraints_of(table):
    """Name and definition of each constraint that the table must have besides its primary key."""
    checks = dict(CHECK.findall(table_file(table)))
    return checks | PARENT if table == "task_runs" else checks


def apply(connection):
    cursor = connection.cursor()
    adopted = adopted_names(cursor, "table")
    if ("task_runs", "") in adopted:
        cursor.execute("lock table task_runs in access exclusive mode")
        cursor.execute(TASK_PATH)
    for table in FILLED:
        if (table, "") in adopted:
            fill(cursor, table)
    if ("task_runs", "") in adopted:
        cursor.execute(REFUSE)
        for repair in REPAIRS:
            cursor.execute(repair)
    for table in FILLED:
        if (table, "") in adopted:
            constraints = constraints_of(table)
            for name in sorted(set(constraints) - constraint_names(cursor, table)):
                cursor.execute(f"alter table {table} add constraint {name} {constraints[name]} not valid")


def fill(cursor, table):
    columns = FILLED[table]
    cursor.execute(
        "select a.attname from pg_attribute a"
        " where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attnotnull and not a.attisdropped",
        [table],
    )
    open_columns = [name for (name,) in cursor.fetchall() if name in columns]
    if open_columns:
        values = ", ".join(f"{name} = coalesce({name}, {columns[name]})" for name in open_columns)
        cursor.execute(f"update {table} set {values} where " + " or ".join(f"{name} is null" for name in open_columns))
        cursor.execute(
            f"alter table {table} " + ", ".join(f"alter column {name} set not null" for name in open_columns)
        )


def constraint_names(cursor, table):
    cursor.execute("select k.conname from pg_constraint k where k.conrelid = to_regclass(%s)", [table])
    return {name for (name,) in cursor.fetchall()}


def adopted_names(cursor, kind):
    cursor.execute("select to_regclass('_reproq_adopted') is not null")
    if not cursor.fetchone()[0]:
        return set()
    cursor.execute("select relation, name from _reproq_adopted where kind = %s", [kind])
    return set(cursor.fetchall())


def rollback(connection):
    cursor = connection.cursor()
    tables, there_before = adopted_names(cursor, "table"), adopted_names(cursor, "constraint")
    for table in FILLED:
        if (table, "") in tables:
            for name in constraints_of(table):
                if (table, name) not in there_before:
                    cursor.execute(f"alter table if exists {table} drop constraint if exists {name}")


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
