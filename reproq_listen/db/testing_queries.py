"""Statements of the test fixtures: databases, the clock, and what waits."""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString

from psycopg.sql import SQL, Composed, Identifier, Literal

Text = LiteralString

UNFINISHED: Text = """
    select t.task_path, t.spec_json -> 'args', t.spec_json -> 'kwargs', t.queue_name, t.status
    from task_runs t
    where t.status in ('READY', 'WAITING', 'RUNNING')
    order by t.result_id"""
OF_PATH: Text = """
    select t.result_id, coalesce(t.spec_json -> 'args', '[]'), coalesce(t.spec_json -> 'kwargs', '{}'), t.queue_name,
           t.priority
    from task_runs t
    where t.status in ('READY', 'WAITING', 'RUNNING') and t.task_path = %s
    order by t.result_id"""
NOW: Text = "select reproq_now()"
QUEUES = SQL("select distinct t.queue_name from {schema}task_runs t where t.status = 'READY'")


def create_database(name: str, template: str) -> Composed:
    """Create a database as a copy of another, to which no session may be connected."""
    return SQL("create database {} template {} encoding 'UTF8'").format(Identifier(name), Identifier(template))


def drop_database(name: str) -> Composed:
    """Drop a database, its sessions included."""
    return SQL("drop database if exists {} with (force)").format(Identifier(name))


def set_clock(offset: timedelta) -> Composed:
    """Let `reproq_now()` give the time of the server and this much more. Its owner and grants stay."""
    return SQL(
        "create or replace function reproq_now() returns timestamptz language sql volatile parallel safe"
        " as $$ select clock_timestamp() + interval {} $$"
    ).format(Literal(f"{offset.total_seconds()} seconds"))
