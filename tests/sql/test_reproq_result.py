"""reproq_result: what became of a task, and a notification at its end for those who asked for one."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.sql.calls import Row, add, call, cancel, chain, claim, complete, fail_for_good, task, update
from tests.support.database import Clock, Database, wait_until


def result(conn: psycopg.Connection, result_id: int, **arguments: object) -> Row:
    (found,) = call(conn, "reproq_result", result_id=result_id, **arguments)
    return found


def test_result_shows_each_state(conn: psycopg.Connection, clock: Clock) -> None:
    """What a producer wants to know; a missing task has no row."""
    spec = {"v": 1, "task_path": "app.tasks.run", "args": [1], "kwargs": {"a": 2}}
    result_id = add(conn, spec_json=spec)
    found = result(conn, result_id)
    assert (found.status, found.args, found.kwargs, found.attempts) == ("READY", [1], {"a": 2}, 0)
    assert (found.task_path, found.return_json, found.errors_json) == ("app.tasks.run", None, [])
    (attempt,) = claim(conn)
    assert result(conn, result_id).started_at == clock.now
    clock.advance(seconds=1)
    complete(conn, attempt, returns=[{"ok": True}])
    found = result(conn, result_id)
    assert (found.status, found.return_json, found.finished_at) == ("SUCCESSFUL", {"ok": True}, clock.now)
    assert call(conn, "reproq_result", result_id=result_id + 1) == []


def test_result_watch_writes_once(conn: psycopg.Connection) -> None:
    """The flag is set while the task has not ended, whatever its state; asking again writes nothing."""
    first, _second = chain(conn, 2)
    for result_id in (first, _second):
        assert not result(conn, result_id).watched
        assert result(conn, result_id, watch=True).watched
        before = task(conn, result_id).revision
        assert result(conn, result_id, watch=True).watched
        assert task(conn, result_id).revision == before
    cancel(conn, first)
    other = add(conn)
    cancel(conn, other)
    assert not result(conn, other, watch=True).watched


def test_result_watch_does_not_wait_for_a_held_row(connect: Callable[[], psycopg.Connection]) -> None:
    """Then `watched` is false: ask again."""
    holder, waiter = connect(), connect()
    result_id = add(holder)
    holder.commit()
    holder.execute("select from task_runs where result_id = %s for update", [result_id])
    assert not result(waiter, result_id, watch=True).watched
    waiter.rollback()
    holder.rollback()
    assert result(waiter, result_id, watch=True).watched


def by_completion(conn: psycopg.Connection, result_id: int) -> None:
    complete(conn, *claim(conn))


def by_failure(conn: psycopg.Connection, result_id: int) -> None:
    fail_for_good(conn, *claim(conn))


def by_cancel(conn: psycopg.Connection, result_id: int) -> None:
    cancel(conn, result_id)


def by_another_program(conn: psycopg.Connection, result_id: int) -> None:
    update(conn, result_id, status="CANCELLED")


@pytest.mark.parametrize("end", [by_completion, by_failure, by_cancel, by_another_program])
@pytest.mark.parametrize("watch", [True, False])
def test_result_end_is_notified_when_watched(
    database: Database,
    connect: Callable[[], psycopg.Connection],
    end: Callable[[psycopg.Connection, int], None],
    *,
    watch: bool,
) -> None:
    """However the task ends, and only if a client has asked."""
    session = connect()
    with psycopg.connect(database.dsn, autocommit=True) as listener:
        listener.execute("listen reproq_ended")
        result_id = add(session)
        session.commit()
        if watch:
            assert result(listener, result_id, watch=True).watched
        end(session, result_id)
        session.execute("notify reproq_ended, 'last'")
        session.commit()
        seen: list[str] = []

        def is_over() -> bool:
            seen.extend(notify.payload for notify in listener.notifies(timeout=0))
            return "last" in seen

        wait_until(is_over, what="the last notification")
        assert seen == ([str(result_id)] if watch else []) + ["last"]


def test_result_steps_that_end_with_another_are_notified(conn: psycopg.Connection) -> None:
    """A watched step behind a cancelled one ends with it."""
    first, second = chain(conn, 2)
    result(conn, second, watch=True)
    cancel(conn, first)
    assert task(conn, second).status == "FAILED"
    assert task(conn, second).notify_end
