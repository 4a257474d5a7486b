"""Makes the tables. One that is there already, made by Django, is adopted: it gets the columns and defaults it lacks.

What was there before is recorded in `_reproq_adopted`, so that a rollback drops only what these steps made. From
adopted tables it takes the columns and defaults; their rows stay, and so does each other table that holds rows. Where
no table was adopted, it refuses while a table holds rows.
Locks: access exclusive on adopted tables, for an instant (no rewrite).
"""

import random
import re
import sys
import time
from pathlib import Path

from yoyo import step

SQL = Path(__file__).resolve().parents[1] / "sql"
TABLES = (
    "task_runs",
    "workflow_runs",
    "rate_limits",
    "reproq_queue_controls",
    "reproq_concurrency_limits",
    "reproq_metrics_cache",
    "reproq_workers",
    "periodic_tasks",
    "periodic_occurrences",
    "reproq_audit_log",
    "reproq_unique_keys",
    "reproq_steps",
)
PATH = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"

RECORD = """
create table _reproq_adopted (
    relation text not null,
    kind text not null,
    name text not null,
    primary key (relation, kind, name)
);
comment on table _reproq_adopted is
    'What was there before the first migration of reproq-listen; a rollback leaves it alone.';
with t as (
    select c.oid, c.relname::text as relname
    from pg_class c
    where c.relnamespace = quote_ident(current_schema())::regnamespace
      and c.relkind in ('r', 'p') and c.relname = any (%s)
)
insert into _reproq_adopted (relation, kind, name)
select t.relname, 'table', '' from t
union all
select t.relname, 'column', a.attname from t join pg_attribute a on a.attrelid = t.oid
where a.attnum > 0 and not a.attisdropped
union all
select t.relname, 'default', a.attname from t join pg_attribute a on a.attrelid = t.oid
where a.atthasdef and not a.attisdropped
union all
select t.relname, 'constraint', k.conname from t join pg_constraint k on k.conrelid = t.oid
union all
select t.relname, 'index', x.relname
from t join pg_index i on i.indrelid = t.oid join pg_class x on x.oid = i.indexrelid
"""

# `reproq-listen migrate` says the same before the first step; this is for `yoyo apply`.
REFUSE_ENCODING = """
do $$ begin
    if current_setting('server_encoding') <> 'UTF8' then
        raise exception 'the database has the encoding %, and reproq-listen needs UTF8',
            current_setting('server_encoding') using errcode = '0A000',
            hint = 'create database NAME template template0 encoding ''UTF8''; and restore a dump into it';
    end if;
end $$
"""

# Column, type, default (None = none): what an adopted table may lack. KEYS below: what it may not.
COLUMNS = {
    "task_runs": (
        ("backend_alias", "text", "'default'"),
        ("queue_name", "text", "'default'"),
        ("priority", "integer", "0"),
        ("run_after", "timestamptz", None),
        ("task_path", "text", None),
        ("status", "text", "'READY'"),
        ("enqueued_at", "timestamptz", "now()"),
        ("started_at", "timestamptz", None),
        ("last_attempted_at", "timestamptz", None),
        ("finished_at", "timestamptz", None),
        ("attempts", "integer", "0"),
        ("max_attempts", "integer", "3"),
        ("timeout_seconds", "integer", "900"),
        ("lock_key", "text", None),
        ("concurrency_key", "text", None),
        ("concurrency_limit", "integer", "0"),
        ("workflow_id", "uuid", None),
        ("wait_count", "integer", "0"),
        ("worker_ids", "jsonb", "'[]'"),
        ("return_json", "jsonb", None),
        ("errors_json", "jsonb", "'[]'"),
        ("metadata_json", "jsonb", "'{}'"),
        ("last_error", "text", None),
        ("failed_at", "timestamptz", None),
        ("leased_until", "timestamptz", None),
        ("leased_by", "text", None),
        ("logs_uri", "text", None),
        ("artifacts_uri", "text", None),
        ("expires_at", "timestamptz", None),
        ("created_at", "timestamptz", "now()"),
        ("updated_at", "timestamptz", "now()"),
        ("cancel_requested", "boolean", "false"),
        ("parent_id", "bigint", None),
        ("lease_token", "uuid", None),
        ("leased_incarnation", "uuid", None),
        ("last_token", "uuid", None),
        ("last_answer", "text", None),
        ("lost_count", "integer", "0"),
        ("snooze_count", "integer", "0"),
        ("limit_key", "text", "''"),
        ("blocked_on", "text", "''"),
        ("concurrency_slot", "integer", None),
        ("revision", "integer", "0"),
        ("notify_end", "boolean", "false"),
    ),
    "workflow_runs": (
        ("success_count", "integer", "0"),
        ("failure_count", "integer", "0"),
        ("callback_result_id", "bigint", None),
        ("status", "text", "'RUNNING'"),
        ("created_at", "timestamptz", "now()"),
        ("updated_at", "timestamptz", "now()"),
        ("revision", "integer", "0"),
    ),
    "rate_limits": (("last_refilled_at", "timestamptz", "now()"), ("throttled_until", "timestamptz", None)),
    "reproq_queue_controls": (
        ("paused", "boolean", "false"),
        ("paused_at", "timestamptz", None),
        ("reason", "text", None),
        ("created_at", "timestamptz", "now()"),
        ("updated_at", "timestamptz", "now()"),
    ),
    "reproq_workers": (
        ("queues", "jsonb", "'[]'"),
        ("started_at", "timestamptz", "now()"),
        ("last_seen_at", "timestamptz", "now()"),
        ("version", "text", None),
        ("incarnation", "uuid", None),
        ("allowed_modules", "jsonb", None),
    ),
    "periodic_tasks": (
        ("payload_json", "jsonb", "'{}'"),
        ("queue_name", "text", "'default'"),
        ("priority", "integer", "0"),
        ("max_attempts", "integer", "3"),
        ("concurrency_key", "text", None),
        ("concurrency_limit", "integer", "0"),
        ("last_run_at", "timestamptz", None),
        ("enabled", "boolean", "true"),
        ("created_at", "timestamptz", "now()"),
        ("updated_at", "timestamptz", "now()"),
        ("time_zone", "text", "'UTC'"),
        ("misfire", "text", "'one'"),
        ("overlap", "text", "'allow'"),
        ("planned", "boolean", "false"),
        ("options_json", "jsonb", "'{}'"),
    ),
}

REFUSE = """
do $$ begin
    raise exception 'table {table} holds rows; this step made it and will not drop it' using errcode = 'RQ004',
        hint = 'Keep the schema: migrate again. Or move the rows away and empty the table first.';
end $$
"""

FOREIGN = """
do $$ begin
    raise exception 'there is a {table} that is no table of Reproq: it has no column {column}' using errcode = 'RQ004',
        hint = 'Install into another schema, with: reproq-listen migrate --schema NAME';
end $$
"""
KEYS = {
    "task_runs": ("result_id", "spec_json", "spec_hash"),
    "workflow_runs": ("workflow_id", "expected_count"),
    "rate_limits": ("key", "tokens_per_second", "burst_size", "current_tokens"),
    "reproq_queue_controls": ("queue_name",),
    "reproq_workers": ("worker_id", "hostname", "concurrency"),
    "periodic_tasks": ("name", "cron_expr", "task_path", "next_run_at"),
}


def table_file(table):
    """The text of sql/tables/TABLE.sql: as first released; before that, as it is."""
    for released in SQL.glob("released/*.sql"):
        parts = re.split(r"^-- file: (\S+)\n", released.read_text(), flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[f"tables/{table}.sql"]
    return (SQL / "tables" / f"{table}.sql").read_text()


def statements(text):
    """The statements of a file, each without the comments before it."""
    return [re.sub(r"\A(\s*--.*\n)*", "", part).strip() for part in text.split(";\n")]


def apply(connection):
    cursor = connection.cursor()
    cursor.execute(REFUSE_ENCODING)
    if not exists(cursor, "_reproq_adopted"):
        for statement in RECORD.split(";\n"):
            cursor.execute(statement, [list(TABLES)] if "%s" in statement else None)
    for table in TABLES:
        text = table_file(table)
        if exists(cursor, table):
            adopt(cursor, table, text)
        else:
            cursor.execute(text)


def adopt(cursor, table, text):
    for column in KEYS.get(table, ()):
        if column_type(cursor, table, column) is None:
            cursor.execute(FOREIGN.format(table=table, column=column))
    changes = []
    for column, kind, default in COLUMNS.get(table, ()):
        # The default goes in with the column, or its old rows would stay null.
        changes.append(f"add column if not exists {column} {kind}" + (f" default {default}" if default else ""))
        if default:
            changes.append(f"alter column {column} set default {default}")
    if table == "task_runs" and column_type(cursor, table, "spec_hash") != "character varying(64)":
        changes.append("alter column spec_hash type varchar(64)")
    if changes:
        cursor.execute(f"alter table {table} " + ", ".join(changes))
    for statement in statements(text):
        if statement.startswith(("comment on", "insert into", "alter table")):
            cursor.execute(statement)


def rollback(connection):
    cursor = connection.cursor()
    if not exists(cursor, "_reproq_adopted"):  # rolled back already
        return
    cursor.execute("select relation, kind, name from _reproq_adopted")
    adopted = set(cursor.fetchall())
    made = [table for table in reversed(TABLES) if (table, "table", "") not in adopted]
    held = [table for table in made if exists(cursor, table) and holds_rows(cursor, table)]
    if held and len(made) == len(TABLES):
        cursor.execute(REFUSE.format(table=held[0]))
    for table in reversed(TABLES):
        if table not in made:
            restore(cursor, table, adopted)
        elif table not in held:
            cursor.execute(f"drop table if exists {table}")
    if held:
        sys.stderr.write(
            f"reproq-listen made these tables, too; they stay, for they hold rows: {', '.join(sorted(held))}. "
            "Drop them when no program needs the rows.\n"
        )
    cursor.execute("drop table _reproq_adopted")


def holds_rows(cursor, table):
    """Whether rows would be lost with the table: the row `global` and the cache are made again."""
    lost = {"rate_limits": "r.key <> 'global'", "reproq_metrics_cache": "false"}.get(table, "true")
    cursor.execute(f"select exists (select from {table} r where {lost})")
    return cursor.fetchone()[0]


def restore(cursor, table, adopted):
    for statement in statements(table_file(table)):
        if statement.startswith("comment on"):
            cursor.execute(statement.split(" is '", 1)[0] + " is null")
        elif statement.startswith("alter table"):
            cursor.execute(re.sub(r" = [\d.]+", "", statement).replace(" set (", " reset (", 1))
    changes = []
    for column, _, default in COLUMNS.get(table, ()):
        if (table, "column", column) not in adopted:
            changes.append(f"drop column if exists {column}")
        elif default and (table, "default", column) not in adopted:
            changes.append(f"alter column {column} drop default")
    if changes:
        cursor.execute(f"alter table {table} " + ", ".join(changes))


def exists(cursor, table):
    cursor.execute("select to_regclass(quote_ident(current_schema()) || '.' || %s) is not null", [table])
    return cursor.fetchone()[0]


def column_type(cursor, table, column):
    cursor.execute(
        "select format_type(a.atttypid, a.atttypmod) from pg_attribute a"
        " where a.attrelid = to_regclass(%s) and a.attname = %s",
        [table, column],
    )
    row = cursor.fetchone()
    return row and row[0]


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
