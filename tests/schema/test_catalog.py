"""What the catalog must say: who may execute what, as whom and on which search path; what every object is for."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest

ENTRY_POINTS = {
    "reproq_audit",
    "reproq_cancel",
    "reproq_chain",
    "reproq_channels",
    "reproq_chord",
    "reproq_claim",
    "reproq_complete",
    "reproq_complete_and_claim",
    "reproq_concurrency_set",
    "reproq_contract",
    "reproq_enqueue",
    "reproq_enqueue_many",
    "reproq_explain",
    "reproq_fail",
    "reproq_group",
    "reproq_heartbeat",
    "reproq_limit_rm",
    "reproq_limit_set",
    "reproq_metrics",
    "reproq_next_beat",
    "reproq_next_wake",
    "reproq_notify_off",
    "reproq_notify_on",
    "reproq_open_transactions",
    "reproq_pause",
    "reproq_prune_audit",
    "reproq_prune_expired",
    "reproq_prune_finished",
    "reproq_reclaim",
    "reproq_register_worker",
    "reproq_release",
    "reproq_replay",
    "reproq_replay_by_hash",
    "reproq_result",
    "reproq_resume",
    "reproq_retry",
    "reproq_retry_failed",
    "reproq_save_metadata",
    "reproq_results",
    "reproq_complete_and_enqueue",
    "reproq_complete_one",
    "reproq_step_save",
    "reproq_steps_done",
    "reproq_schedule_fire",
    "reproq_schedule_rm",
    "reproq_schedule_set",
    "reproq_schedules_due",
    "reproq_spec_hash",
    "reproq_unregister_worker",
}
PURE = {"reproq_contract", "reproq_spec_hash"}  # these touch no table
ARITHMETIC = {"reproq_now", "reproq_bucket_level"}  # public, since views call functions as the role that reads them
FUNCTIONS = """
    select p.proname, p.prosecdef, coalesce(p.proconfig, '{}'), p.prorettype = 'trigger'::regtype,
           has_function_privilege('public', p.oid, 'execute'), obj_description(p.oid, 'pg_proc')
    from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname ~ '^_?reproq_'
"""


def test_there_is_one_function_of_each_name(conn: psycopg.Connection) -> None:
    """No overloads."""
    names = [row[0] for row in conn.execute(FUNCTIONS)]
    assert len(names) == len(set(names))


def test_catalog_what_is_internal_is_named_so(conn: psycopg.Connection) -> None:
    r"""`\df reproq_*` lists the interface and nothing else; all other functions are `_reproq_`."""
    names = {row[0] for row in conn.execute(FUNCTIONS)}
    assert {name for name in names if not name.startswith("_")} == ENTRY_POINTS | ARITHMETIC


def test_catalog_public_may_execute_nothing(conn: psycopg.Connection) -> None:
    """EXECUTE is revoked from PUBLIC function by function; a database's owner grants it by audience."""
    assert [row[0] for row in conn.execute(FUNCTIONS) if row[4]] == []


def test_entry_points_run_as_their_owner_on_a_pinned_path(conn: psycopg.Connection) -> None:
    """Entry points and trigger functions are security definer, and look for names in the schema, pg_temp last."""
    wrong = [
        name
        for name, definer, settings, is_trigger, _, _ in conn.execute(FUNCTIONS)
        if (is_trigger or name in ENTRY_POINTS - PURE) and not (definer and "search_path=public, pg_temp" in settings)
    ]
    assert wrong == []


def test_helpers_run_as_their_caller(conn: psycopg.Connection) -> None:
    """Only entry points and trigger functions lend their owner's rights; a helper pins no path: it is inlined."""
    wrong = [
        name
        for name, definer, settings, is_trigger, _, _ in conn.execute(FUNCTIONS)
        if not is_trigger and name not in ENTRY_POINTS and (definer or "search_path=public, pg_temp" in settings)
    ]
    assert wrong == []


def test_catalog_definer_always_pins_its_path(conn: psycopg.Connection) -> None:
    """Whatever runs as its owner must not be led astray by the caller's search path."""
    loose = [
        name
        for name, definer, settings, *_ in conn.execute(FUNCTIONS)
        if definer and "search_path=public, pg_temp" not in settings
    ]
    assert loose == []


def test_catalog_temporary_table_does_not_shadow_ours(conn: psycopg.Connection) -> None:
    """A caller's own `task_runs` is not what the functions read and write."""
    conn.execute("create temp table task_runs (like public.task_runs including all)")
    conn.execute("set local search_path = pg_temp, public")
    conn.execute("select reproq_enqueue('app.tasks.add')")
    assert conn.execute("select count(*) from pg_temp.task_runs").fetchone() == (0,)
    assert conn.execute("select count(*) from public.task_runs").fetchone() == (1,)


def test_everything_says_what_it_is_for(conn: psycopg.Connection) -> None:
    """Every table and function has a comment; a function's ends with the release that changed it last."""
    tables = conn.execute(
        "select c.relname, obj_description(c.oid, 'pg_class') from pg_class c"
        " where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and c.relname !~ '^_?yoyo'"
    ).fetchall()
    assert [name for name, comment in tables if not comment] == []
    functions = conn.execute(FUNCTIONS).fetchall()
    unversioned = [row[0] for row in functions if not re.search(r" @\d+\.\d+\.\d+$", row[5] or "")]
    assert unversioned == []


LEASE = {"lease_token": "00000000-0000-0000-0000-000000000001", "leased_until": "2030-01-01"}
RUNNING = {"status": "RUNNING", **LEASE}


@pytest.mark.parametrize(
    ("rows", "refused_by"),
    [
        ([{"task_path": None}], "task_runs_task_path_not_empty"),
        ([{"task_path": ""}], "task_runs_task_path_not_empty"),
        ([{"parent_id": 12345}], "task_runs_parent_id_fkey"),
        ([{"spec_hash": "a"}, {"spec_hash": "a"}], "task_runs_one_active_per_spec"),
        ([{**RUNNING, "lock_key": "k"}, {**RUNNING, "lock_key": "k"}], "task_runs_one_running_per_lock_key"),
        (
            [{**RUNNING, "concurrency_key": "k", "concurrency_slot": 1}] * 2,
            "task_runs_one_running_per_slot",
        ),
    ],
)
def test_catalog_table_refuses_what_must_not_be(
    conn: psycopg.Connection, rows: list[dict[str, Any]], refused_by: str
) -> None:
    """With all triggers off, two tasks still never run with one key. Triggers do the rest (test_rows_by_others)."""
    conn.execute("alter table task_runs disable trigger user")
    with pytest.raises(psycopg.IntegrityError) as refused:
        insert(conn, rows)
    assert refused.value.diag.constraint_name == refused_by


def test_catalog_table_takes_what_may_be(conn: psycopg.Connection) -> None:
    """Legal neighbours of those rows pass: empty keys exclude no task, final rows are no duplicates."""
    conn.execute("alter table task_runs disable trigger user")
    final = {"status": "SUCCESSFUL", "finished_at": "2030-01-01", "spec_hash": "same"}
    insert(conn, [final, final, *[{**RUNNING, "lock_key": key} for key in ("", "", "k")]])
    assert conn.execute("select count(*) from task_runs").fetchone() == (5,)


def insert(conn: psycopg.Connection, rows: list[dict[str, Any]]) -> None:
    """Insert one row after the other, each with a spec_hash of its own unless it says otherwise."""
    for number, row in enumerate(rows):
        values = {"spec_json": "{}", "spec_hash": f"h{number}", "task_path": "app.tasks.add", **row}
        names, marks = ", ".join(values), ", ".join(f"%({name})s" for name in values)
        conn.execute(f"insert into task_runs ({names}) values ({marks})".encode(), values)
