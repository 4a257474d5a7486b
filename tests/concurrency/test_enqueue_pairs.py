"""Producers concurrent with each other and with the end of a duplicate: every order, and what must hold in each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, at_once, commit, rollback
from tests.concurrency.sessions import Attempt, Session


def enqueue(session: Session, _made: Any) -> int:
    return session.enqueue(1)


def active(look: Session) -> int:
    return int(look.value("select count(*) from task_runs where status in ('READY', 'RUNNING')"))


@pytest.mark.parametrize("end", [commit, rollback])
def test_two_producers_of_one_spec(interleaver: Interleaver, end: Step) -> None:
    """One spec, two producers: one task, and both know it; if one rolls back the other's stands."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        one, other = run.answers["a"][0], run.answers["b"][0]
        assert active(look) == 1
        assert look.status(other) == "READY"
        assert end is rollback or one == other

    interleaver.every_order(lambda _: None, check, a=[enqueue, end], b=[enqueue, commit])


def test_batches_in_opposite_orders(interleaver: Interleaver) -> None:
    """Two batches of the same specs, one backwards: no deadlock, the same tasks, each made once."""

    def forwards(session: Session, _made: Any) -> list[tuple[int, bool]]:
        return session.enqueue_many([1, 2, 3, 4, 5])

    def backwards(session: Session, _made: Any) -> list[tuple[int, bool]]:
        return session.enqueue_many([5, 4, 3, 2, 1])

    def overlapping(session: Session, _made: Any) -> list[tuple[int, bool]]:
        return session.enqueue_many([4, 9, 1])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        a, b, c = (run.answers[name][0] for name in "abc")
        assert [task for task, _ in a] == [task for task, _ in reversed(b)]
        assert [c[0][0], c[2][0]] == [a[3][0], a[0][0]]
        assert sum(created for _, created in [*a, *b, *c]) == 6
        assert active(look) == 6

    interleaver.every_order(
        lambda _: None, check, a=[forwards, commit], b=[backwards, commit], c=[at_once(overlapping)]
    )


@pytest.mark.parametrize("action", ["complete", "fail", "release"])
def test_producer_and_the_end_of_a_duplicate(interleaver: Interleaver, action: str) -> None:
    """A producer waits for a duplicate that is ending, then gets a task of its own; one that goes on is its task."""

    def prepare(session: Session) -> list[Attempt]:
        session.enqueue(1)
        return session.claim()

    def end(session: Session, made: list[Attempt]) -> Any:
        return getattr(session, action)(*made)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        duplicate, found = run.made[0].result_id, run.answers["b"][0]
        assert run.answers["a"][0][0] in ("ok", "failed")
        if action == "release":
            assert found == duplicate
        elif run.after(("b", 0), ("a", 0)):
            assert found != duplicate
        assert active(look) == (0 if found == duplicate and action != "release" else 1)
        assert len(look.claim(10)) == active(look)

    interleaver.every_order(prepare, check, a=[end, commit], b=[enqueue, commit])


def test_batches_that_are_stopped_in_the_middle(interleaver: Interleaver) -> None:
    """A batch with half of its tasks made waits for another session, a second batch for one of these: no deadlock."""

    def forwards(session: Session, _made: Any) -> list[tuple[int, bool]]:
        return session.enqueue_many([2, 1, 3])

    def backwards(session: Session, _made: Any) -> list[tuple[int, bool]]:
        return session.enqueue_many([3, 2])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        a, b = run.answers["a"][0], run.answers["b"][0]
        assert [a[2][0], a[0][0]] == [task for task, _ in b]
        assert a[1][0] == run.answers["c"][0]
        assert active(look) == 3

    interleaver.every_order(lambda _: None, check, a=[at_once(forwards)], b=[at_once(backwards)], c=[enqueue, commit])


def test_producer_that_looks_at_the_past(interleaver: Interleaver) -> None:
    """A producer in REPEATABLE READ that cannot see the duplicate is told to try again: no endless loop."""

    def snapshot(session: Session, _made: Any) -> None:
        session.rows("set transaction isolation level repeatable read")
        session.rows("select count(*) from task_runs")

    def check(run: Run, look: Session) -> None:
        unseen = run.after(("a", 1), ("b", 0)) and run.after(("b", 1), ("a", 0))
        assert [error.sqlstate for error in run.errors()] == (["40001"] if unseen else [])
        assert active(look) == 1

    interleaver.every_order(lambda _: None, check, a=[enqueue, commit], b=[snapshot, enqueue, commit])


def test_retry_and_a_producer_of_the_same_spec(interleaver: Interleaver) -> None:
    """One of them makes the spec active, the other finds it so; neither fails."""

    def prepare(session: Session) -> int:
        task = session.enqueue(1)
        session.fail(*session.claim())
        return task

    def retry(session: Session, made: int) -> str:
        return session.retry(made)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        said, found = run.answers["a"][0], run.answers["b"][0]
        assert (said, found == run.made) in [("retried", True), ("already_active", False)]
        assert active(look) == 1

    interleaver.every_order(prepare, check, a=[retry, commit], b=[enqueue, commit])


@pytest.mark.parametrize("end", [commit, rollback])
def test_step_has_a_duplicate(interleaver: Interleaver, end: Step) -> None:
    """A task has the hash of a step, or is just getting it: the end before the step neither fails nor waits."""

    def prepare(session: Session) -> tuple[list[Attempt], list[int]]:
        first = session.add()
        step = session.add(status="WAITING", parent_id=first, wait_count=1, spec_hash="s")
        _, _, callback = session.add_chord(1)
        session.rows("update task_runs set spec_hash = 'c' where result_id = %s", callback)
        return session.claim(2), [step, callback]

    def complete(session: Session, made: tuple[list[Attempt], list[int]]) -> list[str]:
        return session.complete(*made[0])

    def insert_duplicates(session: Session, _made: Any) -> list[int]:
        return [session.add(spec_hash="s"), session.add(spec_hash="c")]

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited == set()
        assert run.answers["a"][0] == ["ok", "ok"]
        assert [look.status(task) for task in run.made[1]] == ["READY", "READY"]

    interleaver.every_order(prepare, check, a=[complete, commit], b=[insert_duplicates, end])


def test_claim_of_a_duplicate_and_its_producer(interleaver: Interleaver) -> None:
    """A claim does not disturb deduplication: the duplicate is active before, during and after it."""

    def prepare(session: Session) -> int:
        return session.enqueue(1)

    def claim(session: Session, _made: Any) -> list[Attempt]:
        return session.claim()

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["b"][0] == run.made
        assert active(look) == 1

    interleaver.every_order(prepare, check, a=[claim, commit], b=[enqueue, commit])
