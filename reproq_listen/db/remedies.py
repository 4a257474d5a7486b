"""Statements that `doctor` proposes for people to run, ready to paste into psql. The program runs none of them."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg.sql import SQL, Composable, Identifier, Literal

NEW_DATABASE = "create database NAME template template0 encoding 'UTF8';"


def reset(role: str, setting: str) -> str:
    """Remove a setting of a role."""
    return _text("alter role {} reset {};", Identifier(role), Identifier(setting))


def reset_for_all(role: str, database: str, setting: str) -> str:
    """Remove a setting of a role and of a database."""
    for_database = _text("alter database {} reset {};", Identifier(database), Identifier(setting))
    return f"{reset(role, setting)} {for_database}"


def commit_durably(role: str) -> str:
    """Make the commits of a role survive a crash of the server."""
    return _text("alter role {} set synchronous_commit = on;", Identifier(role))


def end_session(pid: int) -> str:
    """End a session and the transaction it has open."""
    return _text("select pg_terminate_backend({});", Literal(pid))


def end_prepared(gid: str) -> str:
    """End a prepared transaction, one way or the other; from its own database."""
    return _text("commit prepared {0}; -- or: rollback prepared {0};", Literal(gid))


def oldest_transactions() -> str:
    """Show the sessions whose transactions are oldest."""
    return "select pid, usename, xact_start, query from pg_stat_activity order by xact_start limit 5;"


def see_sessions(role: str) -> str:
    """Let a role see the sessions of other roles."""
    return _text("grant pg_read_all_stats to {};", Identifier(role))


def row_security_not_forced(schema: str, tables: Iterable[str]) -> str:
    """Show all rows to the owner of tables."""
    statement = "alter table {}.{} no force row level security;"
    return " ".join(_text(statement, Identifier(schema), Identifier(table)) for table in tables)


def autovacuum_on() -> str:
    return "alter system set autovacuum = on; select pg_reload_conf();"


def autovacuum_table(schema: str) -> str:
    return _text("alter table {}.task_runs reset (autovacuum_enabled);", Identifier(schema))


def vacuum_often(schema: str) -> str:
    """Vacuum the tasks now, and from now on after every hundredth of them."""
    table = Identifier(schema, "task_runs")
    return _text(
        "vacuum {0}; -- and for good: alter table {0} set "
        "(autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);",
        table,
    )


def build(schema: str, index: str, definition: str, table: str, *, unique: bool) -> str:
    """Create an index without blocking writers. `definition`: columns and condition, as in our files."""
    return _text(
        "create {} concurrently {} on {} ",
        SQL("unique index" if unique else "index"),
        Identifier(index),
        Identifier(schema, table),
    ) + " ".join(f"{definition};".split())


def enable_trigger(schema: str, table: str, trigger: str) -> str:
    return _text("alter table {} enable trigger {};", Identifier(schema, table), Identifier(trigger))


def search_in(schema: str) -> str:
    """The search path that our files of functions, triggers and views need."""
    return _text("set search_path = {}, pg_temp", Identifier(schema))


def rebuild(schema: str, index: str) -> str:
    return _text("reindex index concurrently {};", Identifier(schema, index))


def join(group: str, role: str) -> str:
    return _text("grant {} to {};", Identifier(group), Identifier(role))


def inherit(group: str, role: str) -> str:
    """Let a member use the rights of its group without SET ROLE."""
    return _text(
        "grant {0} to {1} with inherit true; -- before PostgreSQL 16: alter role {1} inherit;",
        Identifier(group),
        Identifier(role),
    )


def give_away(schema: str) -> str:
    """Give schema and objects to an owner that is no superuser. The last query returns statements to run."""
    return _text(
        "create role reproq_owner nologin; alter schema {0} owner to reproq_owner; -- then, followed by \\gexec: "
        "select format('alter %s %s owner to reproq_owner', o.kind, o.name) from (select 'function' as kind, "
        "p.oid::regprocedure::text as name from pg_proc p where p.pronamespace = {1}::regnamespace and "
        "p.proname ~ '^_?reproq_' union all select 'table', c.oid::regclass::text from pg_class c "
        "where c.relnamespace = {1}::regnamespace and c.relkind in ('r', 'v')) as o",
        Identifier(schema),
        Literal(schema),
    )


def _text(template: str, *names: Composable) -> str:
    return SQL(template).format(*names).as_string()
