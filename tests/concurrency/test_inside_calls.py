"""Races inside a call: one session is stopped where it is about to write, and the others go on around it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, commit
from tests.concurrency.sessions import Attempt, Session
from tests.support.database import Database, expect_blocked, in_background


def claim(session: Session, _made: Any) -> list[Attempt]:
    return session.claim(10)


def complete(session: Session, made: list[Attempt]) -> list[str]:
    return session.complete(*made)


def reclaim(session: Session, _made: Any) -> dict[int, str]:
    return session.reclaim()


def one_runs_two_wait(session: Session, **columns: Any) -> list[Attempt]:
    """The first of three tasks of a key runs."""
    for _ in range(3):
        session.add(**columns)
    return session.claim(1)


KEYS = [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 1}]


@pytest.mark.parametrize("columns", KEYS)
def test_race_two_claims_before_they_write(interleaver: Interleaver, columns: dict[str, Any]) -> None:
    """A claim that has decided on a key but not written yet excludes the others already."""

    def prepare(session: Session) -> None:
        for _ in range(3):
            session.add(**columns)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(run.answers["a"][0]) + len(run.answers["b"][0]) == 1
        assert "b" not in run.waited

    interleaver.every_order(prepare, check, gates={"a": "RUNNING"}, a=[claim, commit], b=[claim, commit])


@pytest.mark.parametrize("columns", KEYS)
@pytest.mark.parametrize("end", ["complete", "fail", "release"])
def test_task_is_blocked_while_the_holder_ends(interleaver: Interleaver, columns: dict[str, Any], end: str) -> None:
    """A claim blocks a task in the moment in which its key is let go: the end waits for it, and unblocks it."""

    def end_holder(session: Session, made: list[Attempt]) -> Any:
        return getattr(session, end)(*made)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(look.claim(10)) == (0 if run.answers["a"][0] else 1)

    interleaver.every_order(
        lambda session: one_runs_two_wait(session, **columns),
        check,
        gates={"a": "BLOCKED"},
        a=[claim, commit],
        b=[end_holder, commit],
    )


@pytest.mark.parametrize("columns", KEYS)
@pytest.mark.parametrize("point", ["SUCCESSFUL", "UNBLOCKED"])
def test_claim_looks_while_the_holder_ends(interleaver: Interleaver, columns: dict[str, Any], point: str) -> None:
    """A claim in the middle of the holder's end takes one task of the key or leaves all to the next claim."""

    def prepare(session: Session) -> list[Attempt]:
        made = one_runs_two_wait(session, **columns)
        if point == "UNBLOCKED":
            session.claim(10)
            assert session.value("select count(*) from task_runs where blocked_on <> ''") == 2
        return made

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(run.answers["b"][0]) + len(look.claim(10)) == 1

    interleaver.every_order(prepare, check, gates={"a": point}, a=[complete, commit], b=[claim, commit])


@pytest.mark.parametrize("columns", KEYS)
@pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "CANCELLED", "READY"])
@pytest.mark.parametrize("gates", [{"a": "BLOCKED"}, {"b": "SUCCESSFUL"}], ids=str)
def test_holder_is_moved_by_hand(
    interleaver: Interleaver, columns: dict[str, Any], status: str, gates: dict[str, str]
) -> None:
    """A direct UPDATE takes no key's lock: what is blocked meanwhile is found by the next claim."""

    def by_hand(session: Session, made: list[Attempt]) -> None:
        session.rows("update task_runs set status = %s where result_id = %s", status, made[0].result_id)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(run.answers["a"][0]) + len(look.claim(10)) == 1

    at = {name: status if point == "SUCCESSFUL" else point for name, point in gates.items()}
    interleaver.every_order(
        lambda session: one_runs_two_wait(session, **columns), check, gates=at, a=[claim, commit], b=[by_hand, commit]
    )


def test_task_is_deleted_while_its_key_is_let_go(interleaver: Interleaver) -> None:
    """The task that is about to come back is deleted: the one behind it comes instead."""

    def prepare(session: Session) -> list[Attempt]:
        made = one_runs_two_wait(session, lock_key="k")
        session.claim(10)
        return made

    def delete(session: Session, made: list[Attempt]) -> None:
        session.rows("delete from task_runs where result_id = %s", made[0].result_id + 1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert [attempt.result_id for attempt in look.claim(10)] == [run.made[0].result_id + 2]

    interleaver.every_order(prepare, check, gates={"a": "UNBLOCKED"}, a=[complete, commit], b=[delete, commit])


def test_claim_and_a_claim_by_hand(interleaver: Interleaver) -> None:
    """A Go worker's UPDATE that runs a task of a key makes the key busy at once: our claim neither waits nor fails."""

    def prepare(session: Session) -> list[int]:
        return [session.add(lock_key="k"), session.add(lock_key="k"), session.add()]

    def by_hand(session: Session, made: list[int]) -> None:
        session.rows(
            "update task_runs set status = 'RUNNING', leased_by = 'go', attempts = attempts + 1,"
            " leased_until = now() + interval '1 minute' where result_id = %s",
            made[0],
        )

    def check(run: Run, look: Session) -> None:
        if run.after(("a", 0), ("b", 0)):
            assert run.errors() == []
            assert "a" not in run.waited
            assert [attempt.result_id for attempt in run.answers["a"][0]] == [run.made[2]]
        # The other way round the UPDATE waits for our claim; one that took the key first is the Go worker's error.
        assert look.value("select count(*) from task_runs where status = 'RUNNING' and lock_key = 'k'") == 1

    interleaver.every_order(prepare, check, a=[claim, commit], b=[by_hand, commit])


@pytest.mark.parametrize(("columns", "slot"), [(KEYS[0], None), (KEYS[1], 1)])
def test_race_two_claims_by_hand(interleaver: Interleaver, columns: dict[str, Any], slot: int | None) -> None:
    """Two programs that know nothing of our locks run tasks of one key, or of one place: the table refuses one."""

    def prepare(session: Session) -> list[int]:
        return [session.add(**columns), session.add(**columns)]

    def by_hand(number: int) -> Step:
        return lambda session, made: session.rows(
            "update task_runs set status = 'RUNNING', leased_by = 'go', concurrency_slot = %s where result_id = %s",
            slot,
            made[number],
        )

    def check(run: Run, look: Session) -> None:
        assert [error.sqlstate for error in run.errors()] == ["23505"]
        assert look.value("select count(*) from task_runs where status = 'RUNNING'") == 1

    interleaver.every_order(prepare, check, a=[by_hand(0), commit], b=[by_hand(1), commit])


@pytest.mark.parametrize("action", ["complete the member", "cancel the callback"])
@pytest.mark.parametrize("status", ["FAILED", "SUCCESSFUL"])
def test_callback_is_ended_by_hand_inside_another_call(interleaver: Interleaver, status: str, action: str) -> None:
    """A direct UPDATE holds the callback before the chord, our calls the other way round: they do not deadlock."""

    def prepare(session: Session) -> tuple[Attempt, int]:
        _, _, callback = session.add_chord(1)
        return session.claim()[0], callback

    def call(session: Session, made: tuple[Attempt, int]) -> Any:
        return session.complete(made[0]) if action.startswith("complete") else session.cancel(made[1])

    def by_hand(session: Session, made: tuple[Attempt, int]) -> None:
        session.rows("update task_runs set status = %s where result_id = %s", status, made[1])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        said = run.answers["a"][0]
        assert said in (["ok"], ["busy"], "cancelled", "terminal")
        if said == ["busy"]:
            assert look.complete(run.made[0]) == ["ok"]
        look.reclaim()
        if said != "cancelled":
            assert look.status(run.made[1]) == status
        assert look.value("select status from workflow_runs") == look.status(run.made[1])

    interleaver.every_order(prepare, check, gates={"b": status}, a=[call, commit], b=[by_hand, commit])


def test_callback_is_retried_by_hand_inside_the_retry_of_a_member(interleaver: Interleaver) -> None:
    """A retry by UPDATE that would have to wait for the chord is refused; ours goes on: they do not deadlock."""

    def prepare(session: Session) -> tuple[int, int]:
        _, [member], callback = session.add_chord(1)
        session.fail(*session.claim())
        return member, callback

    def retry(session: Session, made: tuple[int, int]) -> str:
        return session.retry(made[0])

    def by_hand(session: Session, made: tuple[int, int]) -> None:
        session.rows("update task_runs set status = 'READY' where result_id = %s and status = 'FAILED'", made[1])

    def check(run: Run, look: Session) -> None:
        assert run.answers["a"][0] == "retried"
        assert [error.sqlstate for error in run.errors()] in ([], ["55P03"])
        assert look.status(run.made[0]) == "READY"

    runs = interleaver.every_order(prepare, check, gates={"b": "READY"}, a=[retry, commit], b=[by_hand, commit])
    assert any(run.errors() for run in runs)  # the race that is meant took place


def test_race_two_members_are_ended_by_hand(interleaver: Interleaver) -> None:
    """Two Go workers end the last two members: counted by the second, or by the next reclaim if they met."""

    def prepare(session: Session) -> list[Attempt]:
        session.add_chord(2)
        return session.claim(2)

    def by_hand(number: int) -> Step:
        return lambda session, made: session.rows(
            "update task_runs set status = 'SUCCESSFUL', finished_at = now(), leased_by = null, leased_until = null"
            " where result_id = %s",
            made[number].result_id,
        )

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        if run.after(("b", 0), ("a", 1)) or run.after(("a", 0), ("b", 1)):
            assert look.value("select status from workflow_runs") == "WAITING_CALLBACK"
        look.reclaim()
        assert look.value("select status from workflow_runs") == "WAITING_CALLBACK"

    interleaver.every_order(prepare, check, a=[by_hand(0), commit], b=[by_hand(1), commit])


def test_race_two_caretakers_and_a_broken_chain(interleaver: Interleaver) -> None:
    """Parts of one reclaim hold rows while later parts look for more: two reclaims never wait for each other."""

    def prepare(session: Session) -> list[int]:
        failed = session.add(status="FAILED")
        middle = session.add(status="WAITING", parent_id=failed, wait_count=1)
        last = session.add(status="WAITING", parent_id=middle, wait_count=1)
        session.rows("update task_runs set expires_at = now() - interval '1 s' where result_id = %s", last)
        return [middle, last]

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        look.reclaim()
        assert [look.status(task) for task in run.made] == ["FAILED", "FAILED"]

    interleaver.every_order(prepare, check, gates={"a": "FAILED"}, a=[reclaim, commit], b=[reclaim, commit])


@pytest.mark.parametrize("action", ["complete", "heartbeat", "cancel"])
def test_call_inside_a_reclaim(interleaver: Interleaver, action: str) -> None:
    """A reclaim that is about to take a task away: no other session gets an answer that it then belies."""

    def prepare(session: Session) -> list[Attempt]:
        session.add()
        made = session.claim()
        session.rows("update task_runs set leased_until = reproq_now() - interval '1 s'")
        return made

    def call(session: Session, made: list[Attempt]) -> Any:
        if action == "cancel":
            return session.cancel(made[0].result_id)
        return session.complete(*made) if action == "complete" else session.heartbeat(made, worker="look")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        reclaimed, said = run.answers["a"][0], run.answers["b"][0]
        task = run.made[0].result_id
        if action == "cancel":
            assert said in ("cancelled", "requested")
            if said == "cancelled":
                assert reclaimed == {task: "ready"}
            elif not reclaimed:  # the cancel held the row just then
                assert look.reclaim() == {task: "failed"}
            assert (look.status(task), look.kind(task)) == ("FAILED", "cancelled")
        else:
            assert (said in (["busy"], ["lost"])) == bool(reclaimed)

    point = "READY"
    interleaver.every_order(prepare, check, gates={"a": point}, a=[reclaim, commit], b=[call, commit])


def test_step_arrives_inside_the_end_of_its_predecessor(interleaver: Interleaver) -> None:
    """A child inserted between the look for children and the commit waits for the next reclaim, not for ever."""

    def prepare(session: Session) -> list[Attempt]:
        session.add()
        return session.claim()

    def insert_child(session: Session, made: list[Attempt]) -> int:
        return session.add(status="WAITING", parent_id=made[0].result_id, wait_count=1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert "b" not in run.waited
        look.reclaim()
        assert look.status(run.answers["b"][0]) == "READY"

    interleaver.every_order(prepare, check, gates={"a": "SUCCESSFUL"}, a=[complete, commit], b=[insert_child, commit])


# Slow down a claim after its look: where one stream is all there is, and where streams are merged.
GATE = """
create function gate() returns boolean language plpgsql volatile as $$
begin
    if current_setting('reproq_test.slow', true) = 'on' then
        perform pg_advisory_xact_lock_shared(-77);
    end if;
    return true;
end $$;
alter table reproq_queue_controls rename to controls;
create view reproq_queue_controls as select c.* from controls c union all
    select 'default', not gate(), null, null, now(), now();
create or replace function _reproq_effective_priority(p_priority integer, p_ready_since timestamptz,
    p_now timestamptz, p_aging_factor double precision) returns double precision language plpgsql as $$
begin perform gate(); return p_priority; end $$;
"""
CHANGES = {
    "retried later": None,
    "cancelled by an UPDATE": "update task_runs set cancel_requested = true where result_id = %s",
    "expired by an UPDATE": "update task_runs set expires_at = now() - interval '1 s' where result_id = %s",
    "moved to another queue": "update task_runs set queue_name = 'elsewhere' where result_id = %s",
    "due later": "update task_runs set run_after = now() + interval '1 hour' where result_id = %s",
}


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("change", CHANGES)
def test_claim_decides_by_the_row_that_it_locks(database: Database, streams: int, change: str) -> None:
    """A claim is slow after its look; meanwhile its candidate changes: what counts is the row under the lock."""
    with Session(database.dsn, "a") as slow, Session(database.dsn, "b") as fast, database.connect() as gate:
        gate.execute(GATE)
        task = fast.add(spec_json='{"task_path": "app.tasks.work", "exec": {"backoff_seconds": 3600}}')
        if streams > 1:
            fast.add(priority=-5, run_after="2999-01-01")
        fast.commit()
        gate.execute("select pg_advisory_lock(-77)")
        slow.rows("set reproq_test.slow = on")
        claimed = in_background(
            slow.connection, "select result_id from reproq_claim('a', array['default'], 10, '1 min')"
        )
        expect_blocked(slow.connection, by=gate)
        statement = CHANGES[change]
        if statement is None:
            fast.fail(*fast.claim(), retryable=True)
        else:
            fast.rows(statement, task)
        fast.commit()
        gate.execute("select pg_advisory_unlock(-77)")
        assert claimed.result(10) == []
        slow.commit()
        assert slow.status(task) != "RUNNING"
