"""reproq_audit: a row for every action of an operator: who, from where, what, why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import add, add_many, call, cancel, refused, retry, rows, value
from tests.support.database import Clock

ACTIONS: dict[str, LiteralString] = {
    "cancel": "select reproq_cancel(1)",
    "retry": "select reproq_retry(2)",
    "replay": "select reproq_replay(3)",
    "pause": "select reproq_pause('q', 'deploy')",
    "limit_set": "select reproq_limit_set('queue:q', 1, 1)",
    "limit_rm": "select reproq_limit_rm('queue:l')",
    "resume": "select reproq_resume('p')",
    "schedule_set": "select reproq_schedule_set('s', '@daily', 'a.b')",
    "schedule_rm": "select reproq_schedule_rm('t')",
    "prune_expired": "select reproq_prune_expired()",
    "prune_finished": "select reproq_prune_finished('1 day')",
}


@pytest.fixture
def prepared(conn: psycopg.Connection, clock: Clock) -> psycopg.Connection:
    """Something for each action to act on."""
    long_ago = "2020-01-01"
    for number, status in ((1, "READY"), (2, "FAILED"), (3, "SUCCESSFUL")):
        add(conn, result_id=number, status=status)
    add(conn, result_id=4, status="SUCCESSFUL", expires_at=long_ago)
    add(conn, result_id=5, status="SUCCESSFUL", finished_at=long_ago)
    conn.execute(
        "select reproq_limit_set('queue:l', 1, 1), reproq_pause('p'), reproq_schedule_set('t', '@daily', 'a.b')"
    )
    conn.execute("alter sequence task_runs_result_id_seq restart 100")
    conn.execute("delete from reproq_audit_log")
    return conn


@pytest.mark.parametrize("what", ACTIONS)
def test_audit_every_action_leaves_a_row(prepared: psycopg.Connection, clock: Clock, what: str) -> None:
    """One, by the database's clock, with the session's role, application and reason."""
    prepared.execute("set local application_name = 'ops'")
    prepared.execute("select set_config('reproq.reason', 'ticket 42', true)")
    prepared.execute(ACTIONS[what])
    (found,) = call(prepared, "reproq_audit")
    assert (found.what, found.at, found.why) == (what, clock.now, "ticket 42")
    assert found.who == value(prepared, "select session_user")
    assert found.origin.endswith("ops")
    assert found.details != {}


def test_audit_what_a_schedule_passes_to_its_task_is_left_out(conn: psycopg.Connection) -> None:
    """Operators see no payloads: only whether it changed."""
    for password in ("hunter2", "hunter3", "hunter3"):
        call(conn, "reproq_schedule_set", name="s", cron_expr="@daily", task_path="a.b", kwargs=Jsonb({"pw": password}))
    call(conn, "reproq_schedule_set", name="s", cron_expr="@hourly", task_path="a.b", kwargs=Jsonb({"pw": password}))
    details = [row.details for row in call(conn, "reproq_audit")]
    assert "hunter" not in str(details)
    assert [each["payload_changed"] for each in details] == [False, True, True]


def test_audit_what_changed_nothing_leaves_none(conn: psycopg.Connection) -> None:
    """Answers such as missing, terminal or unchanged are no actions."""
    done = add(conn, status="SUCCESSFUL")
    for result_id in (done, 999):
        cancel(conn, result_id)
        retry(conn, result_id)
    conn.execute("select reproq_resume('nope'), reproq_limit_rm('queue:nope'), reproq_schedule_rm('nope')")
    conn.execute("select reproq_prune_expired(), reproq_prune_finished('1 day'), reproq_prune_audit('1 day')")
    assert call(conn, "reproq_audit") == []


def test_page_by_page_latest_first(conn: psycopg.Connection) -> None:
    """p_limit rows, before p_before_id."""
    for result_id in add_many(conn, 5):
        cancel(conn, result_id)
    seen: list[Any] = []
    while page := call(conn, "reproq_audit", limit=2, before_id=seen[-1].audit_id if seen else None):
        seen += page
    ids = [row.audit_id for row in seen]
    assert len(ids) == 5
    assert ids == sorted(ids, reverse=True)


def test_audit_bad_limit_is_refused(conn: psycopg.Connection) -> None:
    """RQ001."""
    assert refused(conn, "reproq_audit", limit=-1).sqlstate == "RQ001"


def test_audit_rolled_back_action_is_none(connect: Callable[[], psycopg.Connection]) -> None:
    """The row stands in the action's own transaction."""
    session = connect()
    result_id = add(session)
    session.commit()
    cancel(session, result_id)
    session.rollback()
    assert rows(session, "select 1 from reproq_audit_log") == []
