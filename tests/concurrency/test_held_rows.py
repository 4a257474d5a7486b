"""Another session holds one row for long. Calls that hold rows themselves step over it: nothing else waits with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.concurrency.backlogs import KEYS, backlog
from tests.concurrency.interleave import Interleaver, Run, commit
from tests.concurrency.sessions import TASK_PATH, Session
from tests.support.database import Database

Hold = Callable[[Session, Any], Any]


def hold(what: str) -> Hold:
    """A step that holds what the scenario calls `held`: a task's row, a workflow's row or a key."""

    def step(session: Session, made: dict[str, Any]) -> None:
        if what == "task":
            session.rows("select from task_runs where result_id = %s for update", made["held"])
        elif what == "workflow":
            session.rows("select from workflow_runs for update")
        else:
            session.rows("select pg_advisory_xact_lock(_reproq_key_hash('l:k'))")

    return step


def claim(session: Session, _made: Any) -> Any:
    return session.claim(10)


def reclaim(session: Session, _made: Any) -> dict[int, str]:
    return session.reclaim()


def was_held(run: Run) -> bool:
    """Whether b's call began while a held the row."""
    order = [("ended", "a", 0), ("began", "b", 0), ("began", "a", 1)]
    return sorted(order, key=run.events.index) == order


@pytest.mark.parametrize("call", [claim, reclaim])
@pytest.mark.parametrize("what", ["task", "workflow"])
def test_expired_task_that_cannot_end(interleaver: Interleaver, what: str, call: Hold) -> None:
    """An expired task with a callback or chord that is held does not end yet: a claim takes the other tasks."""

    def prepare(session: Session) -> dict[str, Any]:
        _, [expired], callback = session.add_chord(1)
        session.rows("update task_runs set expires_at = now() - interval '1 s' where result_id = %s", expired)
        return {"expired": expired, "held": callback, "other": session.add()}

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        if call is claim:
            assert [attempt.result_id for attempt in run.answers["b"][0]] == [run.made["other"]]
        if was_held(run):
            assert not run.waited
            assert look.status(run.made["expired"]) == "READY"
            assert look.next_wake() == 0
            look.claim(10)
        assert look.kind(run.made["expired"]) == "expired"
        assert look.kind(run.made["held"]) == "workflow_failed"

    interleaver.every_order(prepare, check, a=[hold(what), commit], b=[call, commit])


@pytest.mark.parametrize("call", [reclaim, claim])
def test_reclaim_and_a_held_step(interleaver: Interleaver, call: Hold) -> None:
    """One held step keeps its own predecessor from ending; other leases, expiries and missed dependents are handled."""

    def prepare(session: Session) -> dict[str, Any]:
        first, second = session.add_chain(2, max_attempts=1)
        session.add(priority=-1)
        session.claim(2)
        session.rows("update task_runs set leased_until = reproq_now() - interval '1 s' where status = 'RUNNING'")
        expired = session.add(expires_at="2020-01-01")
        behind = session.add(status="WAITING", parent_id=(parent := session.add(run_after="9999-01-01")), wait_count=1)
        session.rows("set local session_replication_role = replica")  # the parent ends without seeing the step
        session.rows("update task_runs set status = 'SUCCESSFUL', finished_at = now() where result_id = %s", parent)
        session.rows("set local session_replication_role = origin")
        return {"first": first, "held": second, "expired": expired, "behind": behind}

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert look.kind(run.made["expired"]) == "expired"
        if was_held(run):
            assert not run.waited
            assert look.status(run.made["first"]) == "RUNNING"
        look.commit()
        look.reclaim()
        assert look.status(run.made["behind"]) == "READY"
        assert look.kind(run.made["first"]) == "lease_expiry"
        assert look.kind(run.made["held"]) == "parent_failed"

    interleaver.every_order(prepare, check, a=[hold("task"), commit], b=[call, commit])


@pytest.mark.parametrize("action", ["complete", "fail"])
def test_end_and_a_held_step(interleaver: Interleaver, action: str) -> None:
    """The end of a task is `busy` while another session holds the step behind it; the rest of the batch ends."""

    def prepare(session: Session) -> dict[str, Any]:
        _, second = session.add_chain(2)
        session.add(priority=-1)
        return {"attempts": session.claim(2), "held": second}

    def end(session: Session, made: dict[str, Any]) -> list[str]:
        answers: list[str] = getattr(session, action)(*made["attempts"])
        return answers

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        good = "ok" if action == "complete" else "failed"
        if was_held(run):
            assert not run.waited
            assert run.answers["b"][0] == ["busy", good]
            assert end(look, run.made) == [good, "already"]
        else:
            assert run.answers["b"][0] == [good, good]
        assert look.status(run.made["held"]) == ("READY" if action == "complete" else "FAILED")

    interleaver.every_order(prepare, check, a=[hold("task"), commit], b=[end, commit])


@pytest.mark.parametrize("how", ["for update", "deleted"])
def test_heartbeat_and_its_held_worker_row(interleaver: Interleaver, how: str) -> None:
    """A session that looks at a worker's row, or is just pruning it, does not keep its leases from being renewed."""

    def prepare(session: Session) -> Any:
        session.add()
        attempts = session.claim()
        session.heartbeat(attempts)
        session.rows("update task_runs set leased_until = now() + interval '1 s'")
        return attempts

    def hold_worker(session: Session, _made: Any) -> None:
        if how == "deleted":
            session.rows("delete from reproq_workers where worker_id = 'look'")
        else:
            session.rows("select from reproq_workers where worker_id = 'look' for update")

    def heartbeat(session: Session, made: Any) -> list[str]:
        return session.heartbeat(made, worker="look")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert "b" not in run.waited
        assert run.answers["b"][0] == ["ok"]
        assert look.value("select leased_until > now() + interval '30 s' from task_runs")

    interleaver.every_order(prepare, check, a=[hold_worker, commit], b=[heartbeat, commit])


@pytest.mark.parametrize("what", ["key", "workflow"])
def test_reclaim_and_a_key_or_chord_that_is_held_for_long(interleaver: Interleaver, what: str) -> None:
    """A held key or chord keeps back the lease that needs it, until it is free, and no other."""
    interleaver.clear()
    look = interleaver.look
    _, [member], callback = look.add_chord(1, max_attempts=1)
    keyed, plain = look.add(lock_key="k"), look.add()
    assert len(look.claim(3)) == 3
    look.rows("update task_runs set leased_until = reproq_now() - interval '1 s' where status = 'RUNNING'")
    look.commit()
    holder = Session(look.connection.info.dsn, "holder")
    hold(what)(holder, {})
    try:
        expected = {plain: "ready", member: "failed"} if what == "key" else {plain: "ready", keyed: "ready"}
        assert look.reclaim() == expected
    finally:
        holder.close()
    look.commit()
    rest = {keyed: "ready"} if what == "key" else {member: "failed"}
    assert look.reclaim() == rest
    assert look.kind(callback) == "workflow_failed"
    look.commit()


def test_bulk_retry_and_the_ends_of_siblings(interleaver: Interleaver) -> None:
    """An operator retries failed members of two chords, a worker ends the others: chords are locked in one order."""

    def prepare(session: Session) -> dict[str, Any]:
        first, second = session.add_chord(2), session.add_chord(2)
        attempts = {attempt.result_id: attempt for attempt in session.claim(4)}
        if first[0] < second[0]:  # by result_id the failed tasks come in the other order than their chords
            failed, others = [second[1][0], first[1][1]], [second[1][1], first[1][0]]
        else:
            failed, others = [first[1][0], second[1][0]], [first[1][1], second[1][1]]
        session.fail(*(attempts[task] for task in failed))
        return {"others": [attempts[task] for task in others], "failed": failed}

    def retry(session: Session, _made: Any) -> dict[int, str]:
        return {row[0]: row[1] for row in session.rows("select result_id, answer from reproq_retry_failed()")}

    def complete(session: Session, made: dict[str, Any]) -> list[str]:
        return session.complete(*made["others"])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert {run.answers["a"][0][task] for task in run.made["failed"]} == {"retried"}
        if run.answers["b"][0] != ["ok", "ok"]:
            assert set(look.complete(*run.made["others"])) <= {"ok", "already"}
        assert look.value("select count(*) from workflow_runs where status = 'RUNNING' and success_count = 1") == 2

    for gate in ({"a": "READY"}, {"b": "SUCCESSFUL"}):
        interleaver.every_order(prepare, check, gates=gate, a=[retry, commit], b=[complete, commit])


@pytest.mark.parametrize("action", ["complete", "fail", "release"])
@pytest.mark.parametrize("what", ["key", "workflow"])
def test_end_and_a_key_or_chord_that_is_held_for_long(interleaver: Interleaver, what: str, action: str) -> None:
    """Ends wait a while for keys and chords; then only the tasks that need them are busy, not the whole batch."""
    interleaver.clear()
    look = interleaver.look
    _, [member], _ = look.add_chord(1)
    keyed, plain = look.add(lock_key="k"), look.add()
    attempts = {attempt.result_id: attempt for attempt in look.claim(3)}
    look.commit()
    batch = [attempts[task] for task in (keyed, plain, member)]
    good = {"complete": "ok", "fail": "failed", "release": "ok"}[action]
    holder = Session(look.connection.info.dsn, "holder")
    hold(what)(holder, {})
    try:
        expected = ["busy", good, good] if what == "key" else ["busy", good, "busy"]
        assert getattr(look, action)(*batch) == expected
        look.commit()
    finally:
        holder.close()
    assert getattr(look, action)(*batch) == [good if answer == "busy" else "already" for answer in expected]
    look.commit()


def test_claim_and_a_bucket_that_is_held_for_long(interleaver: Interleaver) -> None:
    """A claim waits a while for a bucket; then it starts what needs no token, and leaves the rest as it was."""
    interleaver.clear()
    look = interleaver.look
    look.limit_set(f"task:{TASK_PATH}", 1000, 1000)
    metered, free = look.add(lock_key="k"), look.add(task_path="app.tasks.other")
    look.commit()
    holder = Session(look.connection.info.dsn, "holder")
    holder.limit_set(f"task:{TASK_PATH}", 500, 1000)
    try:
        assert [attempt.result_id for attempt in look.claim(10)] == [free]
        look.commit()
        holder.rollback()
    finally:
        holder.close()
    assert [attempt.result_id for attempt in look.claim(10)] == [metered]
    look.commit()


def test_claim_and_a_backlog_that_is_held(interleaver: Interleaver) -> None:
    """An operator's update of 300 tasks at the head is not committed: what stands behind them starts."""

    def prepare(session: Session) -> dict[str, Any]:
        ahead = [session.add(priority=5) for _ in range(300)]
        return {"held": ahead, "free": session.add()}

    def check(run: Run, _look: Session) -> None:
        assert run.errors() == []
        if was_held(run):
            assert [attempt.result_id for attempt in run.answers["b"][0]] == [run.made["free"]]
            assert not run.waited

    interleaver.every_order(prepare, check, a=[change_all, commit], b=[claim, commit])


def change_all(session: Session, made: dict[str, Any]) -> None:
    session.rows("update task_runs set metadata_json = '{}' where result_id = any (%s)", made["held"])


@pytest.mark.parametrize("key", KEYS)
def test_key_whose_next_task_is_held(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """The task that is to start next under a key is held: a reclaim lets the one behind it pass, once."""
    interleaver.clear()
    look = interleaver.look
    made = backlog(look, key, {}, {}, {})
    assert look.complete(made.holder) == ["ok"]
    look.commit()
    first, second, third = made.blocked
    holder = Session(look.connection.info.dsn, "holder")
    hold("task")(holder, {"held": first})
    try:
        assert look.claim() == []
        assert look.rows("select reason from reproq_explain(%s)", second)[0] == ("blocked",)
        for _ in range(3):
            look.reclaim()
        assert look.blocked(third) != ""
        look.commit()
        [attempt] = look.claim()
        assert attempt.result_id == second
        assert look.complete(attempt) == ["ok"]
        look.commit()
        holder.rollback()
    finally:
        holder.close()
    assert [attempt.result_id for attempt in look.claim()] == [first]
    look.commit()


@pytest.mark.parametrize("what", ["tasks", "workflow", "key"])
def test_held_leases_do_not_starve_reclaim(database: Database, what: str) -> None:
    """Rows, a chord or a key hold more expired leases than reclaim takes at a time: the one behind is reclaimed."""
    with Session(database.dsn, "a") as holder, Session(database.dsn, "b") as other:
        keys = {"concurrency_key": "k", "concurrency_limit": 1000} if what == "key" else {}
        if what == "workflow":
            holder.add_chord(120, max_attempts=1, **keys)
        else:
            for _ in range(120):
                holder.add(**keys)
        behind = holder.add(priority=-1)
        holder.commit()
        while holder.claim(100):
            holder.commit()
        holder.rows("update task_runs set leased_until = reproq_now() - interval '1 h' where status = 'RUNNING'")
        holder.rows("update task_runs set leased_until = reproq_now() - interval '1 s' where result_id = %s", behind)
        holder.commit()
        if what == "tasks":
            holder.rows("select from task_runs where result_id <> %s for update", behind)
        elif what == "workflow":
            holder.rows("select from workflow_runs for update")
        else:
            holder.rows("select pg_advisory_xact_lock(_reproq_key_hash('c:k'))")
        assert other.reclaim() == {behind: "ready"}
        other.commit()


@pytest.mark.parametrize("how", ["expired", "cancelled"])
@pytest.mark.parametrize("what", ["tasks", "workflow"])
def test_held_overdue_tasks_do_not_starve_reclaim(database: Database, what: str, how: str) -> None:
    """More overdue tasks than reclaim takes at a time are held, as rows or by their chord: the one behind them ends."""
    with Session(database.dsn, "a") as holder, Session(database.dsn, "b") as other:
        if what == "workflow":
            holder.add_chord(120)
        else:
            for _ in range(120):
                holder.add()
        behind = holder.add()
        holder.rows(
            "update task_runs set expires_at = reproq_now() - case when %s then case when result_id = %s"
            " then interval '1 s' else interval '1 h' end end, cancel_requested = not %s where status = 'READY'",
            how == "expired",
            behind,
            how == "expired",
        )
        holder.commit()
        if what == "tasks":
            holder.rows("select from task_runs where result_id <> %s for update", behind)
        else:
            holder.rows("select from workflow_runs for update")
        assert other.reclaim() == {behind: "failed"}
        other.commit()
