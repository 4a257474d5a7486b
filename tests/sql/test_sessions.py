"""Whatever session calls: isolation, read-only, search path, temporary tables, quoting, encoding, subtransactions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    MINUTE,
    PATH,
    add,
    add_many,
    call,
    cancel,
    chain,
    claim,
    claimed_ids,
    complete,
    fail,
    heartbeat,
    kind,
    next_wake,
    reclaim,
    refused,
    retry,
    statuses,
    task,
    value,
)
from tests.support.database import Database

NOTHING: dict[str, Any] = {"result_ids": [], "lease_tokens": []}
MOVERS: list[tuple[LiteralString, dict[str, Any]]] = [
    ("reproq_claim", {"worker_id": "w", "queues": ["q"], "limit": 1, "lease": MINUTE}),
    ("reproq_complete", {**NOTHING, "returns": []}),
    ("reproq_fail", {**NOTHING, "errors": [], "retryable": []}),
    ("reproq_release", NOTHING),
    ("reproq_reclaim", {}),
    ("reproq_cancel", {"result_id": 1}),
    ("reproq_retry", {"result_id": 1}),
]
WRITERS: list[tuple[LiteralString, dict[str, Any]]] = [
    *MOVERS[:1],
    ("reproq_heartbeat", {**NOTHING, "worker_id": "w", "lease": MINUTE}),
    ("reproq_unregister_worker", {"worker_id": "w", "incarnation": None}),
    ("reproq_register_worker", {"worker_id": "w", "hostname": "h", "concurrency": 1, "queues": ["q"], "version": "1"}),
    ("reproq_enqueue", {"task_path": PATH}),
    ("reproq_pause", {"queue_name": "q"}),
    ("reproq_limit_set", {"key": "global", "rate": 1, "burst": 1}),
]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize(("function", "arguments"), MOVERS, ids=[name for name, _ in MOVERS])
def test_session_what_moves_tasks_needs_read_committed(
    conn: psycopg.Connection, level: LiteralString, function: LiteralString, arguments: dict[str, Any]
) -> None:
    """RQ003: "lock, then look" needs a new snapshot for each statement."""
    conn.rollback()
    conn.execute(f"set transaction isolation level {level}")
    error = refused(conn, function, **arguments)
    assert error.sqlstate == "RQ003"
    assert "READ COMMITTED" in str(error)
    assert error.diag.message_hint


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_producers_may_use_any_level(conn: psycopg.Connection, level: LiteralString) -> None:
    """Enqueue, look and switch at any level: they rely on no key."""
    conn.rollback()
    conn.execute(f"set transaction isolation level {level}")
    ((first,),) = call(conn, "reproq_enqueue", task_path=PATH, lock_key="k", dedupe=True)
    assert call(conn, "reproq_enqueue", task_path=PATH, lock_key="k", dedupe=True) == [(first,)]
    ((first,),) = call(conn, "reproq_enqueue", task_path=PATH, unique_key="k")
    assert call(conn, "reproq_enqueue", task_path=PATH, unique_key="k") == [(first,)]
    call(conn, "reproq_pause", queue_name="q")
    assert next_wake(conn) is not None


def test_read_uncommitted_is_read_committed(conn: psycopg.Connection) -> None:
    """In PostgreSQL they are the same."""
    conn.rollback()
    conn.execute("set transaction isolation level read uncommitted")
    result_id = add(conn)
    assert claimed_ids(conn) == [result_id]


@pytest.mark.parametrize(("function", "arguments"), WRITERS, ids=[name for name, _ in WRITERS])
def test_session_read_only_transaction_is_told_so(
    conn: psycopg.Connection, function: LiteralString, arguments: dict[str, Any]
) -> None:
    """25006, by which a worker knows a demoted primary; nothing is half done."""
    add(conn, queue_name="q")
    conn.execute("set transaction_read_only = on")
    assert refused(conn, function, **arguments).sqlstate == "25006"


def test_looking_works_in_a_read_only_transaction(conn: psycopg.Connection) -> None:
    """next_wake, spec_hash, contract and now write nothing."""
    add(conn)
    conn.execute("set transaction_read_only = on")
    assert next_wake(conn) is not None
    assert call(conn, "reproq_contract") == [(1, 1)]
    assert value(conn, "select reproq_now()") is not None
    assert len(value(conn, "select reproq_spec_hash('{}')")) == 64


def work_through(session: psycopg.Connection) -> None:
    """A bit of everything, with answers that only the real tables can give."""
    ((first,),) = call(session, "reproq_enqueue", task_path=PATH, args=Jsonb([uuid.uuid4().hex]), lock_key="k")
    steps = chain(session, 2)
    got = {t.result_id: t for t in claim(session)}
    assert sorted(got) == [first, steps[0]]
    assert heartbeat(session, *got.values()) == dict.fromkeys(got, "ok")
    assert complete(session, got[first], returns=["s t\\n'\""]) == ["ok"]
    (answer,) = fail(session, got[steps[0]], error={"kind": "app_error", "message": "is  \n spaced"}, retryable=False)
    assert answer.answer == "failed"
    assert (kind(session, steps[1]), task(session, steps[0]).last_error) == ("parent_failed", "app_error: is spaced")
    assert task(session, first).return_json == "s t\\n'\""
    assert retry(session, steps[0]) == "retried"
    assert statuses(session, steps) == ["READY", "WAITING"]
    assert cancel(session, steps[0]) == "cancelled"
    assert reclaim(session) == {}
    call(session, "reproq_limit_set", key="task:app.s.t", rate=1, burst=1)
    call(session, "reproq_pause", queue_name="default")
    add(session)
    assert claim(session) == []
    call(session, "reproq_resume", queue_name="default")
    assert len(claim(session)) == 1
    assert session.execute("delete from task_runs where status = 'RUNNING'").rowcount == 1


def test_temporary_tables_named_like_ours_are_not_used(conn: psycopg.Connection) -> None:
    """pg_temp is last on the path of every entry and trigger function, transition tables' names included."""
    for table in ("task_runs", "workflow_runs", "rate_limits", "reproq_queue_controls", "reproq_workers", "written"):
        conn.execute(f"create temp table {table} (nothing int)".encode())
    conn.execute("create function pg_temp.reproq_now() returns timestamptz language sql as 'select null::timestamptz'")
    conn.execute("set local search_path = public, pg_temp")
    work_through(conn)


def test_session_hostile_search_path_changes_nothing(conn: psycopg.Connection) -> None:
    """Functions, tables and operators of the caller's path are not called by ours, from a call or from a trigger."""
    conn.execute("create schema evil")
    for table in ("task_runs", "rate_limits", "reproq_queue_controls", "workflow_runs"):
        conn.execute(f"create table evil.{table} (nothing int)".encode())
    conn.execute("create function evil.reproq_now() returns timestamptz language sql as 'select null::timestamptz'")
    conn.execute("create function evil.md5(text) returns text language sql as $$ select 'same'::text $$")
    conn.execute(
        "create function evil.never(text, text) returns boolean language sql as 'select false';"
        " create operator evil.= (leftarg = text, rightarg = text, function = evil.never)"
    )
    conn.execute("create view evil.mine as select * from public.task_runs")
    conn.execute("set local search_path = evil, pg_catalog")
    spec = Jsonb({"task_path": PATH})
    conn.execute("insert into public.task_runs (spec_json, spec_hash, lock_key) values (%s, 'h1', 'a')", [spec])
    conn.execute("insert into public.task_runs (spec_json, spec_hash, lock_key) values (%s, 'h2', 'b')", [spec])
    got = conn.execute(
        "select result_id, lease_token from public.reproq_claim('w', array['default'], 5, '1 min')"
    ).fetchall()
    assert len(got) == 2
    answers = conn.execute(
        "select answer from public.reproq_complete(%s, %s, array['1', '2']::jsonb[])",
        [[row[0] for row in got], [row[1] for row in got]],
    ).fetchall()
    assert answers == [("ok",), ("ok",)]


def test_old_quoting_changes_nothing(database: Database) -> None:
    """standard_conforming_strings = off: function bodies are read by the session's rules, so none has a backslash."""
    with psycopg.connect(database.dsn, options="-c standard_conforming_strings=off", autocommit=True) as session:
        session.add_notice_handler(lambda notice: pytest.fail(f"warned: {notice.message_primary}"))
        work_through(session)
        error = refused(session, "reproq_enqueue", task_path="no dots")
        assert error.sqlstate == "RQ002"
        assert "standard_conforming_strings" not in str(error)


def test_odd_settings_of_a_session_change_nothing(database: Database) -> None:
    """Zone, numbers, planner and formats as a client may have them."""
    settings = {
        "timezone": "Asia/Kathmandu",
        "extra_float_digits": "-15",
        "bytea_output": "escape",
        "transform_null_equals": "on",
        "enable_indexscan": "off",
        "plan_cache_mode": "force_custom_plan",
        "jit": "off",
    }
    options = " ".join(f"-c {name}={setting}" for name, setting in settings.items())
    with psycopg.connect(database.dsn, options=options, autocommit=True) as session:
        work_through(session)


def test_dates_in_json_do_not_depend_on_the_sessions_style(database: Database) -> None:
    """Specs, hashes and errors hold ISO instants, whatever DateStyle says."""
    options = "-c datestyle=SQL,DMY -c intervalstyle=iso_8601 -c timezone=Asia/Kathmandu"
    with psycopg.connect(database.dsn, options=options, autocommit=True) as session:
        run_after = "2011-05-06 07:08:09.5+00"
        session.execute(
            "select reproq_enqueue('a.b', p_run_after => %s, p_max_attempts => 1, p_dedupe => true)", [run_after]
        )
        session.execute(
            "with c as materialized ("
            "select c.result_id, c.lease_token from reproq_claim('w', '{default}', 1, 'PT1M') c)"
            " select f.answer from c, reproq_fail(array[c.result_id], array[c.lease_token], '{\"{}\"}', '{null}') f"
        )
        found = session.execute(
            "select spec_json ->> 'run_after', spec_hash = reproq_spec_hash(spec_json),"
            " (errors_json #>> '{-1,at}') ~ '^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+[+]05:45$' from task_runs"
        )
        assert found.fetchall() == [("2011-05-06T07:08:09.500000+00:00", True, True)]


def test_session_latin1_client_stores_what_it_means(database: Database) -> None:
    """Text is converted at the border; what its encoding cannot show is the client's error, not a stuck row."""
    with psycopg.connect(database.dsn, client_encoding="LATIN1", autocommit=True) as session:
        session.execute("""select reproq_enqueue('app.tâches.é', '["é"]', p_lock_key => 'ñ')""")
        claim_text = (
            "select c.result_id, c.lease_token, c.task_path, (c.spec_json -> 'args')::text"
            " from reproq_claim('w', '{default}', 1, '1 min') c"
        )
        ((result_id, token, path, args),) = session.execute(claim_text).fetchall()
        assert (path, args) == ("app.tâches.é", '["é"]')
        answer = session.execute(
            "select answer from reproq_complete(%s, %s, %s::jsonb[])", [[result_id], [token], ['"ü"']]
        )
        assert answer.fetchall() == [("ok",)]
    with database.connect() as session:
        row = task(session, result_id)
        assert (row.task_path, row.lock_key, row.return_json) == ("app.tâches.é", "ñ", "ü")
        emoji = add(session, task_path="app.\U0001f600")
    latin1 = psycopg.connect(database.dsn, client_encoding="LATIN1", autocommit=True)
    with latin1 as session, pytest.raises(errors.UntranslatableCharacter):
        session.execute(claim_text)
    with database.connect() as session:
        assert task(session, emoji).status == "READY"


def test_calls_inside_subtransactions(conn: psycopg.Connection) -> None:
    """A rolled-back savepoint takes claim, completion and enqueue back with it; the keys are free again."""
    ids = add_many(conn, 2, lock_key="k")
    with conn.transaction(force_rollback=True):
        assert claimed_ids(conn) == [ids[0]]
    assert statuses(conn, ids) == ["READY", "READY"]
    (got,) = claim(conn)
    with conn.transaction(force_rollback=True):
        complete(conn, got)
        assert claimed_ids(conn) == [ids[1]]
    assert complete(conn, got) == ["ok"]


def test_session_role_without_grants_can_do_nothing(database: Database) -> None:
    """EXECUTE is revoked from PUBLIC: 42501 for every entry function, and for the tables."""
    with database.connect() as session:
        role = f"nobody_{uuid.uuid4().hex[:12]}"
        session.execute(f"create role {role}".encode())
        try:
            session.execute(f"set role {role}".encode())
            for function, arguments in [*MOVERS, *WRITERS]:
                assert refused(session, function, **arguments).sqlstate == "42501"
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute("select from task_runs")
        finally:
            session.execute("reset role")
            session.execute(f"drop role {role}".encode())


def test_session_granted_role_works_without_any_right_on_the_tables(database: Database) -> None:
    """Entry functions are security definer: EXECUTE is all a worker or producer needs."""
    functions = ("reproq_enqueue", "reproq_claim", "reproq_complete", "reproq_heartbeat", "reproq_next_wake")
    with database.connect() as session:
        role = f"worker_{uuid.uuid4().hex[:12]}"
        session.execute(f"create role {role}".encode())
        try:
            for function in functions:
                session.execute(f"grant execute on function {function} to {role}".encode())
            session.execute(f"set role {role}".encode())
            ((result_id,),) = call(session, "reproq_enqueue", task_path=PATH, lock_key="k")
            (got,) = claim(session)
            assert heartbeat(session, got) == {result_id: "ok"}
            assert next_wake(session) is not None
            assert complete(session, got) == ["ok"]
        finally:
            session.execute("reset role")
            session.execute(f"drop owned by {role}".encode())
            session.execute(f"drop role {role}".encode())


def test_session_call_waits_two_seconds_at_most_for_a_lock(connect: Callable[[], psycopg.Connection]) -> None:
    """55P03 = try again; the setting is the function's own and ends with it."""
    holder, caller = connect(), connect()
    result_id = add(holder)
    holder.commit()
    holder.execute("select from task_runs where result_id = %s for update", [result_id])
    assert refused(caller, "reproq_cancel", result_id=result_id).sqlstate == "55P03"
    assert value(caller, "show lock_timeout") == "0"
