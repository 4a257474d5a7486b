"""A database in which plans can go wrong, and what calls cost there: pages touched, and full scans.

Sessions plan while the queue is all but empty and keep these plans while it fills, as a worker's connection does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import LiteralString

import psycopg

from tests.schema import django
from tests.support.backlogs import READY, RUNNING, add_backlog
from tests.support.database import Database

MODES = ("auto", "force_custom_plan", "force_generic_plan")

# Runs a statement inside a function, so that what its triggers do is counted, too.
BY_HAND = """
create function by_hand(p_statement text) returns void language plpgsql
as $$ begin execute p_statement; end $$
"""

Columns = dict[str, LiteralString]
BUSY: Columns = {"lock_key": "'busy'"}
FEW: Columns = {"concurrency_key": "'few'", "concurrency_limit": "1"}
WAITING: Columns = {**READY, "status": "'WAITING'", "wait_count": "1"}
DONE: Columns = {**READY, "status": "'SUCCESSFUL'", "finished_at": "now()", "expires_at": "now() + interval '1 day'"}
CHORD: Columns = {"workflow_id": "md5(n::text)::uuid"}
FAILED: Columns = {**READY, "status": "'FAILED'", "attempts": "3", "finished_at": "now()", "failed_at": "now()"}


class Statistics(Enum):
    """What the planner is told before there is a backlog."""

    NONE = "never analysed"
    EMPTY = "analysed after all rows were deleted"  # pages without rows: the planner expects one row of everything
    HISTORY = "analysed while everything had ended"


@dataclass(frozen=True, order=True)
class Cost:
    """What one call did: pages of tables and indexes that it touched, and full scans of task_runs."""

    pages: int
    full_scans: int


ENDLESS = Cost(10**9, 0)  # stopped after two seconds


@dataclass(frozen=True)
class Lab:
    """The filled database: `small` has the costs at a hundredth of the backlog, `large` those at all of it."""

    sessions: Mapping[str, psycopg.Connection]
    small: Mapping[str, Cost]
    large: Mapping[tuple[str, str, str], Cost]
    """By statistics, session and call."""


@contextmanager
def open_lab(
    database: Database, calls: Mapping[str, LiteralString], *, statistics: Statistics, extra: bool
) -> Iterator[Lab]:
    """Fill the database and measure every call on the way.

    `statistics`: what they say before there is a backlog. At the end all sessions are measured once more under full
    statistics. `extra`: with the indexes that Django's side has and adds.
    """
    with database.connect() as owner:
        owner.execute("alter table task_runs set (autovacuum_enabled = off)")
        owner.execute(BY_HAND)
        if extra:
            django.add_model_indexes(owner)
            django.migrate_worker(owner)
        if statistics is Statistics.HISTORY:
            add_backlog(owner, 50_000, {**DONE, "result_id": "10000000000 + n"})
            owner.execute("vacuum analyze")
        if statistics is Statistics.EMPTY:
            add_backlog(owner, 5_000, {**DONE, "result_id": "10000000000 + n"})
            owner.execute("delete from task_runs")
            owner.execute("analyze")
        sessions = {f"planned empty, {mode}": _open_session(database, mode) for mode in MODES}
        for number, after in ((0, 0), (1, 0), (99, 1)):
            add_backlog(owner, number, {**RUNNING, "result_id": "1000000000 + n"}, after=after)
            _plan_all(sessions, calls)
        _add_named_tasks(owner)
        _plan_all(sessions, calls)
        _add_backlogs(owner, 1)
        small = {name: measure(sessions["planned empty, auto"], statement) for name, statement in calls.items()}
        _add_backlogs(owner, 99, after=1)
        sessions["planned full"] = _open_session(database, "auto")
        large = _measure_all(statistics.value, sessions, calls)
        owner.execute("analyze")
        large |= _measure_all("full", sessions, calls)
        yield Lab(sessions, small, large)
        for session in sessions.values():
            session.close()


def measure(session: psycopg.Connection, statement: LiteralString) -> Cost:
    """Run a statement, roll it back, and say what it cost, planning aside."""
    try:
        session.execute("set local statement_timeout = '2s'")
        session.execute("select setseed(0)")  # sweeps begin at a random key
        before = _full_scans(session)
        explain: LiteralString = "explain (analyze, buffers, timing off, format json) "
        [[[explained]]] = session.execute(explain + statement).fetchall()
        plan = explained["Plan"]
        return Cost(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], _full_scans(session) - before)
    except psycopg.errors.QueryCanceled:
        return ENDLESS
    finally:
        session.rollback()


def nested_plans(session: psycopg.Connection, statement: LiteralString) -> str:
    """The plans of the statements inside a call, for a person to read."""
    plans: list[tuple[int, str]] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        text = notice.message_primary or ""
        if pages := re.search(r"Buffers: shared hit=(\d+)", text):
            plans.append((int(pages[1]), text))

    session.add_notice_handler(keep)
    try:
        session.execute("load 'auto_explain'")
        for name, value in (
            ("log_min_duration", "0"), ("log_analyze", "on"), ("log_buffers", "on"), ("log_timing", "off"),
            ("log_nested_statements", "on"), ("log_level", "notice"),
        ):  # fmt: skip
            session.execute("select set_config(%s, %s, true)", [f"auto_explain.{name}", value])
        session.execute(statement)
    finally:
        session.rollback()
        session.remove_notice_handler(keep)
    return "\n".join(text for _, text in sorted(plans, reverse=True)[:4])


def _full_scans(session: psycopg.Connection) -> int:
    row = session.execute("select seq_scan from pg_stat_xact_user_tables where relname = 'task_runs'").fetchone()
    return int(row[0]) if row else 0


def _open_session(database: Database, mode: str) -> psycopg.Connection:
    session = database.connect(autocommit=False)
    session.execute("select set_config('plan_cache_mode', %s, false)", [mode])
    session.commit()
    return session


def _plan_all(sessions: Mapping[str, psycopg.Connection], calls: Mapping[str, LiteralString]) -> None:
    for session in sessions.values():
        for statement in calls.values():
            measure(session, statement)


def _measure_all(
    statistics: str, sessions: Mapping[str, psycopg.Connection], calls: Mapping[str, LiteralString]
) -> dict[tuple[str, str, str], Cost]:
    _plan_all(sessions, calls)
    return {
        (statistics, name, call): min(measure(session, statement) for _ in range(2))
        for name, session in sessions.items()
        for call, statement in calls.items()
    }


def _add_named_tasks(owner: psycopg.Connection) -> None:
    """The few tasks that calls name, with result_ids of their own; always as many, whatever the backlog."""
    owner.execute("select setval(pg_get_serial_sequence('task_runs', 'result_id'), 9000000000)")
    workflow: Columns = {"workflow_id": "'00000000-0000-0000-0000-000000000001'::uuid"}
    add_backlog(owner, 1, {**RUNNING, "result_id": "2000000001", "lock_key": "'busy'"})
    add_backlog(owner, 1, {**RUNNING, **FEW, "result_id": "2000000002", "concurrency_slot": "1"})
    add_backlog(owner, 5, {**RUNNING, **workflow, "result_id": "3000000000 + n"})
    add_backlog(owner, 1, {**WAITING, **workflow, "result_id": "3000000006", "wait_count": "5"})
    owner.execute(
        "insert into workflow_runs (workflow_id, expected_count, callback_result_id)"
        " select t.workflow_id, 5, t.result_id from task_runs t where t.result_id = 3000000006"
    )
    add_backlog(owner, 1, {**RUNNING, "result_id": "4000000001"})
    add_backlog(owner, 1, {**WAITING, "result_id": "4000000002", "parent_id": "4000000001"})
    add_backlog(owner, 20, {**RUNNING, "result_id": "5000000000 + n", "leased_until": "now() - interval '1 minute'"})
    add_backlog(owner, 10, {**READY, "result_id": "6000000000 + n", "queue_name": "'quiet'", "expires_at": "now()"})
    add_backlog(owner, 1, {**FAILED, "result_id": "7000000001"})
    add_backlog(owner, 1, {**RUNNING, "result_id": "8000000000"})


def _add_backlogs(owner: psycopg.Connection, scale: int, *, after: int = 0) -> None:
    """`scale` hundredths of the backlog, the part after the first `after` hundredths."""
    backlogs: list[tuple[int, Columns]] = [
        (1000, {**READY, "priority": "n % 3", "result_id": "n"}),
        # a priority each, as a deadline is; half of them due later
        (250, {**READY, "queue_name": "'deadlines'", "priority": "-n * 2", "result_id": "900000 + n"}),
        (250, {**READY, "queue_name": "'deadlines'", "priority": "-n * 2 - 1", "result_id": "950000 + n",
               "run_after": "now() + n * interval '1 second'"}),
        (250, {**READY, **BUSY, "priority": "n % 3", "blocked_on": "'l:busy'", "result_id": "200000 + n"}),
        (250, {**READY, **FEW, "priority": "n % 3", "blocked_on": "'c:few'", "result_id": "300000 + n"}),
        (500, {**READY, "priority": "n % 3", "run_after": "now() + interval '1 day'", "result_id": "400000 + n"}),
        # chains of ten behind a task that never ends
        (200, {**WAITING, "result_id": "8000000000 + n",
               "parent_id": "case when n % 10 = 1 then 8000000000 else 8000000000 + n - 1 end"}),
        (900, {**DONE, "result_id": "500000 + n"}),
        (100, {**FAILED, "result_id": "600000 + n"}),
        # chords of one member that is not due yet
        (100, {**READY, "run_after": "now() + interval '1 day'", "result_id": "700000 + n", **CHORD}),
        (100, {**WAITING, "updated_at": "now() - interval '1 hour'", "result_id": "800000 + n", **CHORD}),
    ]  # fmt: skip
    for number, columns in backlogs:
        add_backlog(owner, number * scale, columns, after=number * after)
    owner.execute(
        "insert into workflow_runs (workflow_id, expected_count, callback_result_id)"
        " select t.workflow_id, 1, t.result_id from task_runs t where t.result_id between 800000 and 900000"
        " on conflict do nothing"
    )
