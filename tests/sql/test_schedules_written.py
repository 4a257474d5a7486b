"""periodic_tasks as Django, SQL and operators write it: no due run is lost or repeated."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.sql.calls import call, refused, rows, value
from tests.sql.schedules import CRON, STEP, due, fire, row, schedule
from tests.support.database import Clock

# Django's sync: what it writes in every deployment, computed by its own clock.
SYNC = """
    insert into periodic_tasks (name, cron_expr, task_path, payload_json, queue_name, priority, max_attempts,
        concurrency_limit, next_run_at, enabled, created_at, updated_at)
    values ('s', %(cron)s, 'app.tasks.tick', '{}', 'default', 0, 3, 0, %(next)s, true, %(next)s, %(next)s)
    on conflict (name) do update
    set cron_expr = excluded.cron_expr, task_path = excluded.task_path, payload_json = excluded.payload_json,
        queue_name = excluded.queue_name, priority = excluded.priority, max_attempts = excluded.max_attempts,
        concurrency_limit = excluded.concurrency_limit, next_run_at = excluded.next_run_at,
        enabled = excluded.enabled, updated_at = excluded.updated_at
"""


def sync(conn: psycopg.Connection, then: datetime, cron: str = CRON) -> None:
    conn.execute(SYNC, {"cron": cron, "next": then})


def test_schedules_sync_moves_no_due_run(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """Due at 12:05:00, synced at 12:05:10 with the next run at 12:10, looked at at 12:05:29: it runs, once."""
    clock.set(planned + timedelta(seconds=10))
    sync(conn, planned + STEP)
    assert row(conn).next_run_at == planned
    clock.advance(seconds=19)
    assert [r.answer for r in fire(conn, [planned], planned + STEP)] == ["enqueued"]
    sync(conn, planned)  # by a clock that is behind: not again
    assert row(conn).next_run_at == planned + STEP
    assert due(conn) == []


def test_schedules_hundred_syncs_between_runs(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """Before, at and after every occurrence, by clocks two minutes off either way: each happens once."""
    at = planned
    for number in range(100):
        clock.set(at + timedelta(seconds=(number % 3 - 1) * 10))
        sync(conn, at + timedelta(minutes=number % 5 - 2))
        clock.set(at)
        assert [r.answer for r in fire(conn, [at], at + STEP)] == ["enqueued"]
        at += STEP
    assert value(conn, "select count(*) from task_runs") == 100


def test_schedule_that_a_sync_makes_counts_from_now(conn: psycopg.Connection, clock: Clock, start: datetime) -> None:
    """By the database's clock, whatever Django's says: not from a created_at an hour ahead or behind."""
    for hours in (-1, 1):
        conn.execute("delete from periodic_tasks")
        sync(conn, start + timedelta(hours=hours))
        (found,) = due(conn)
        assert found.since == start
        assert not row(conn).planned


def test_schedules_changed_expression_counts_from_its_change(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """Occurrences of the new one that lie before the change were never due."""
    clock.set(planned)
    fire(conn, [planned], planned + STEP)
    clock.advance(minutes=2)
    schedule(conn, cron_expr="1 * * * *")
    (found,) = due(conn)
    assert (found.cron_expr, found.since) == ("1 * * * *", clock.now)


@pytest.mark.parametrize("misfire", ["one", "all", "skip"])
def test_schedules_change_enqueues_the_run_that_was_due(
    conn: psycopg.Connection, clock: Clock, planned: datetime, misfire: str
) -> None:
    """The old expression's due run is not lost when it is changed before a beat looks; skip leaves out an old one."""
    schedule(conn, misfire=misfire)
    clock.set(planned + timedelta(minutes=2))
    schedule(conn, cron_expr="1 * * * *", misfire=misfire)
    found = rows(conn, "select * from periodic_occurrences")
    assert [o.scheduled_at for o in found] == ([] if misfire == "skip" else [planned])
    (looked,) = due(conn)
    assert looked.since == clock.now
    schedule(conn, cron_expr=CRON, misfire=misfire)
    assert value(conn, "select count(*) from task_runs") == len(found)


def test_schedules_due_run_that_cannot_be_enqueued_does_not_stop_the_remedy(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """A broken row can be corrected: the run it had due is reported, the change goes on."""
    conn.execute("update periodic_tasks set task_path = ''")
    clock.set(planned)
    heard: list[str] = []
    conn.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    schedule(conn, cron_expr="1 * * * *")
    assert any("could not be enqueued" in text for text in heard)
    assert row(conn).task_path == "app.tasks.tick"


def test_switched_on_again_it_counts_from_now(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """What would have run while it was off is not missed."""
    conn.execute("update periodic_tasks set enabled = false")
    clock.set(planned + STEP)
    assert due(conn) == []
    assert value(conn, "select reproq_next_beat()") is None
    conn.execute("update periodic_tasks set enabled = true")
    assert due(conn)[0].since == clock.now


def test_schedules_run_that_was_due_when_it_was_switched_off_is_not_lost(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """A sync that switches all schedules off and its own on again comes between a due run and the beat that looks."""
    clock.set(planned + timedelta(seconds=10))
    conn.execute("update periodic_tasks set enabled = false, next_run_at = %s", [planned + STEP])
    conn.execute("update periodic_tasks set enabled = true, next_run_at = %s", [planned + STEP])
    assert [o.scheduled_at for o in rows(conn, "select * from periodic_occurrences")] == [planned]
    assert due(conn)[0].since == clock.now


def test_schedules_run_of_another_programs_beat_counts(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """It writes last_run_at and next_run_at: planned again, from that run on, never from the future."""
    clock.set(planned)
    conn.execute(
        "update periodic_tasks set last_run_at = %s, next_run_at = %s", [planned + timedelta(hours=1), planned + STEP]
    )
    (found,) = due(conn)
    assert found.since == clock.now


def notifications(conn: psycopg.Connection, statement: str, **params: Any) -> list[str]:
    """What is rung on reproq_control by a statement: the transaction's NOTIFYs, by a function in our place."""
    conn.execute(
        "create or replace function _reproq_notify_control(p_message jsonb) returns void language sql as"
        " $$ select set_config('reproq_test.rung', coalesce(current_setting('reproq_test.rung', true), '')"
        " || (p_message ->> 'op') || ' ', true) $$"
    )
    conn.execute("select set_config('reproq_test.rung', '', true)")
    conn.execute(statement.encode(), params or None)
    return str(value(conn, "select current_setting('reproq_test.rung')")).split()


def test_schedules_who_must_plan_is_rung(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """A new or changed schedule notifies the beats; a beat's own plan, a sync and a change without effect do not."""
    insert = (
        "insert into periodic_tasks (name, cron_expr, task_path, next_run_at, enabled)"
        " values (%(n)s, '@daily', 'a.b', now(), %(e)s)"
    )
    assert notifications(conn, insert, n="x", e=True) == ["schedule"]
    assert notifications(conn, insert, n="y", e=False) == []
    assert notifications(conn, "update periodic_tasks set cron_expr = '1 * * * *' where name = 's'") == ["schedule"]
    assert notifications(conn, "update periodic_tasks set next_run_at = now() where name = 's'") == []
    assert notifications(conn, "update periodic_tasks set enabled = true where name = 'y'") == ["schedule"]
    clock.set(planned)
    (looked,) = [found for found in due(conn) if found.name == "s"]
    fire_it = "select reproq_schedule_fire('s', %(c)s, 'UTC', %(s)s, '{}', %(t)s)"
    assert notifications(conn, fire_it, c=looked.cron_expr, s=looked.since, t=planned) == []
    assert row(conn).planned


def test_setting_and_removing(conn: psycopg.Connection, clock: Clock, start: datetime) -> None:
    """created, unchanged, changed; each but unchanged is in the audit log; a removed one is gone, its tasks stay."""
    arguments: dict[str, Any] = {"name": "s", "cron_expr": CRON, "task_path": "app.tasks.tick"}
    answers = [
        call(conn, "reproq_schedule_set", **arguments, **more)[0][0]
        for more in ({}, {}, {"priority": 1}, {"priority": 1})
    ]
    assert answers == ["created", "unchanged", "changed", "unchanged"]
    assert [value(conn, "select reproq_schedule_rm('s')") for _ in "ab"] == [True, False]
    audit = [found.what for found in call(conn, "reproq_audit")]
    assert audit == ["schedule_rm", "schedule_set", "schedule_set"]


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        ("name", None), ("name", ""), ("name", "x" * 513),
        ("cron_expr", None), ("cron_expr", ""), ("cron_expr", "* * * *"), ("cron_expr", "* * * * * *"),
        ("cron_expr", "@every 5m"), ("cron_expr", "* " * 600),
        ("time_zone", None), ("time_zone", ""), ("time_zone", "Mars/Olympus"),
        ("misfire", None), ("misfire", "most"), ("overlap", None), ("overlap", ""),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(conn: psycopg.Connection, argument: str, bad: str | None) -> None:
    """RQ001 names the argument and the remedy."""
    arguments: dict[str, Any] = {"name": "s", "cron_expr": CRON, "task_path": "app.tasks.tick", argument: bad}
    error = refused(conn, "reproq_schedule_set", **arguments)
    assert error.sqlstate == "RQ001"
    assert f"p_{argument}" in str(error)
    assert error.diag.message_hint


def test_schedules_task_that_cannot_be_enqueued_is_refused(conn: psycopg.Connection) -> None:
    """RQ002, as the enqueue itself would say."""
    for more in ({"task_path": "nodots"}, {"max_attempts": 0}, {"queue_name": ""}, {"args": '{"a": 1}'}):
        arguments: dict[str, Any] = {"name": "s", "cron_expr": CRON, "task_path": "app.tasks.tick", **more}
        assert refused(conn, "reproq_schedule_set", **arguments).sqlstate == "RQ002"
