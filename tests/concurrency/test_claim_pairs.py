"""A claim concurrent with another session's work on the same tasks: every order, and what must hold in each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, at_once, commit, rollback
from tests.concurrency.sessions import Session


def claim(session: Session, _made: Any) -> Any:
    return session.claim(10)


def claim_one(session: Session, _made: Any) -> Any:
    return session.claim(1)


def claimed(run: Run) -> list[int]:
    """The tasks that claims of all sessions took."""
    lists = [answer for said in run.answers.values() for answer in said if isinstance(answer, list)]
    return [attempt.result_id for attempts in lists for attempt in attempts]


@pytest.mark.parametrize("step", [claim, claim_one])
def test_race_two_claims_of_one_lock_key(interleaver: Interleaver, step: Step) -> None:
    """Of the tasks of a lock key exactly one starts, whichever claim commits first; no claim fails."""

    def prepare(session: Session) -> None:
        for queue in ("default", "default", "other"):
            session.add(lock_key="k", queue_name=queue)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(claimed(run)) == 1
        assert look.value("select count(*) from task_runs where status = 'RUNNING'") == 1

    def claim_other(session: Session, _made: Any) -> Any:
        return session.claim(10, ["other", "default"])

    interleaver.every_order(prepare, check, a=[step, commit], b=[claim_other, commit])


def test_claim_rolled_back_leaves_the_key_free(interleaver: Interleaver) -> None:
    """A claim that rolls back has taken nothing: the other one, or the next, gets a task of the key."""

    def prepare(session: Session) -> None:
        for _ in range(3):
            session.add(lock_key="k")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        others = run.answers["b"][0]
        assert len(others) + len(look.claim(10)) == 1

    interleaver.every_order(prepare, check, a=[claim, rollback], b=[claim, commit])


@pytest.mark.parametrize(
    ("limits", "most"),
    [((2, 2, 2, 2), 2), ((1, 1, 1), 1), ((5, 2, 5, 5), 2), ((5, 1, 0), 2), ((3, 3), 2), ((0, 0, 0), 3)],
)
def test_race_two_claims_of_one_concurrency_key(interleaver: Interleaver, limits: tuple[int, ...], most: int) -> None:
    """The smallest positive limit of a key holds over both claims, and what fits starts; limit 0 runs unlimited."""

    def prepare(session: Session) -> None:
        for limit in limits:
            session.add(concurrency_key="k", concurrency_limit=limit)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        at_once = claimed(run)
        look.commit()
        later = look.claim(10)
        assert len(at_once) <= most
        assert len(at_once) + len(later) == most

    interleaver.every_order(prepare, check, a=[claim, commit], b=[claim_one, commit])
    interleaver.every_order(prepare, check, a=[claim, commit], b=[claim, commit])


def test_place_that_is_freed_is_taken_once(interleaver: Interleaver) -> None:
    """One holder of a limit of 2 ends while two claims look: never more than 2 run, and the place is used."""

    def prepare(session: Session) -> Any:
        for _ in range(4):
            session.add(concurrency_key="k", concurrency_limit=2)
        return session.claim(2)

    def complete_one(session: Session, made: Any) -> Any:
        return session.complete(made[0])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["a"][0] == ["ok"]
        assert look.value("select count(*) from task_runs where status = 'RUNNING'") <= 2
        look.claim(10)
        assert look.value("select count(*) from task_runs where status = 'RUNNING'") == 2

    interleaver.every_order(prepare, check, a=[complete_one, commit], b=[claim, commit], c=[claim, commit])


def test_claim_and_pause(interleaver: Interleaver) -> None:
    """Once the pause has committed nothing of the queue is claimed; a claim in flight may finish."""

    def prepare(session: Session) -> None:
        session.add()
        session.add()

    def pause(session: Session, _made: Any) -> None:
        session.pause()

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        for number in (0, 2):
            if run.after(("a", number), ("b", 1)):
                assert run.answers["a"][number] == []
            elif run.after(("b", 0), ("a", number)):
                assert len(run.answers["a"][number]) == 1
        assert look.claim(10) == []

    interleaver.every_order(prepare, check, a=[claim_one, commit, claim_one, commit], b=[pause, commit])


@pytest.mark.parametrize("end", [commit, rollback])
def test_claim_and_cancel(interleaver: Interleaver, end: Step) -> None:
    """A task whose cancel said `cancelled` never starts; one that had started is `requested`."""

    def prepare(session: Session) -> int:
        return session.add()

    def cancel(session: Session, made: int) -> str:
        return session.cancel(made)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        started = end is commit and bool(claimed(run))
        answer = run.answers["b"][0]
        assert answer == ("requested" if started else "cancelled")
        assert look.status(run.made) == ("RUNNING" if started else "FAILED")
        assert look.claim() == []
        if started:
            assert look.heartbeat(run.answers["a"][0], worker="a") == ["cancel"]

    interleaver.every_order(prepare, check, a=[claim, end], b=[cancel, commit])


def test_claim_and_expiry(interleaver: Interleaver) -> None:
    """An expired task is ended once, with what depends on it, by whichever claim or caretaker comes first."""

    def prepare(session: Session) -> list[int]:
        _, members, callback = session.add_chord(1)
        session.rows("update task_runs set expires_at = now() - interval '1 s' where result_id = any (%s)", members)
        child = session.add(status="WAITING", parent_id=members[0], wait_count=1)
        return [*members, callback, child]

    def reclaim(session: Session, _made: Any) -> Any:
        return session.reclaim()

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert claimed(run) == []
        member = run.made[0]
        assert [look.kind(task) for task in run.made] == ["expired", "workflow_failed", "parent_failed"]
        assert look.value("select jsonb_array_length(errors_json) from task_runs where result_id = %s", member) == 1
        assert {look.status(task) for task in run.made} == {"FAILED"}

    interleaver.every_order(prepare, check, a=[claim, commit], b=[claim, commit], c=[at_once(reclaim)])


def test_claim_and_prune(interleaver: Interleaver) -> None:
    """A task is either claimed or deleted by a pruner that locks first, never both, never neither."""

    def prepare(session: Session) -> int:
        return session.add()

    def prune(session: Session, made: int) -> bool:
        return session.prune(made)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        here = look.value("select count(*) from task_runs where result_id = %s", run.made)
        assert here == (0 if run.answers["b"][0] else 1)
        if claimed(run):
            assert look.complete(*run.answers["a"][0]) == ["ok"]

    interleaver.every_order(prepare, check, a=[claim, commit], b=[prune, commit])


def test_claim_and_insert_of_a_child(interleaver: Interleaver) -> None:
    """An open transaction that inserts a child does not hide its parent: the foreign key's lock is no obstacle."""

    def prepare(session: Session) -> int:
        return session.add()

    def insert_child(session: Session, made: int) -> int:
        return session.add(status="WAITING", parent_id=made, wait_count=1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert claimed(run) == [run.made]
        assert not run.waited

    interleaver.every_order(prepare, check, a=[insert_child, commit], b=[claim, commit])


def test_claim_and_limit_set(interleaver: Interleaver) -> None:
    """A claim and a change of its bucket take their locks in one order; the limit holds from its commit on."""

    def prepare(session: Session) -> list[int]:
        session.limit_set("task:app.tasks.slow", 0.001, 1)
        return [session.add(task_path="app.tasks.slow") for _ in range(3)]

    def limit_off(session: Session, _made: Any) -> None:
        session.limit_set("task:app.tasks.slow", 0, 1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        if run.after(("b", 0), ("a", 1)):
            assert len(claimed(run)) == 1
        if run.after(("a", 0), ("b", 1)):
            assert len(claimed(run)) == 3
        look.commit()
        assert len(claimed(run)) + len(look.claim(10)) == 3

    interleaver.every_order(prepare, check, a=[claim, commit], b=[limit_off, commit])


def test_claim_and_first_limit(interleaver: Interleaver) -> None:
    """A bucket made while tasks are claimed charges every claim after it, tasks that kept their old label included."""

    def prepare(session: Session) -> None:
        for _ in range(4):
            session.add(task_path="app.tasks.slow")

    def limit(session: Session, _made: Any) -> None:
        session.limit_set("task:app.tasks.slow", 0.001, 1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        if run.after(("a", 0), ("b", 1)):
            assert len(run.answers["a"][0]) == 1
        assert len(look.claim(10)) + len(claimed(run)) in (1, 2)
        assert look.claim(10) == []

    interleaver.every_order(prepare, check, a=[claim_one, commit], b=[limit, commit])


def test_race_two_claims_of_one_bucket(interleaver: Interleaver) -> None:
    """Two claims together never take more tokens than there are, and take all of them."""

    def prepare(session: Session) -> None:
        session.limit_set("queue:default", 0.001, 3)
        for _ in range(6):
            session.add()

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(claimed(run)) + len(look.claim(10)) == 3

    def claim_two(session: Session, _made: Any) -> Any:
        return session.claim(2)

    interleaver.every_order(prepare, check, a=[claim_two, commit], b=[claim_two, commit])
