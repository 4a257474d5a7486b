"""Bulk retry, prune and a retry by hand, concurrent with each other and with held rows: none holds up another."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, commit, rollback
from tests.concurrency.sessions import Session

LONG_AGO = "2020-01-01"


def retry_failed(queue: str) -> Step:
    """A step that retries the failed tasks of a queue; its answers by result_id."""

    def step(session: Session, _made: Any) -> dict[int, str]:
        found = session.rows("select result_id, answer from reproq_retry_failed(%s)", queue)
        return {row[0]: row[1] for row in found}

    return step


def prune(session: Session, _made: Any) -> int:
    return int(session.value("select reproq_prune_finished('1 day')"))


def hold(session: Session, made: dict[str, Any]) -> None:
    session.rows("select from task_runs where result_id = any (%s) order by result_id for update", made["held"])


def retry_by_hand(session: Session, made: dict[str, Any]) -> None:
    session.rows("update task_runs set status = 'READY' where result_id = %s", made["failed"])


def fail_all(session: Session) -> None:
    """Everything that can start fails long ago."""
    session.fail(*session.claim(100, ("default", "other")))
    session.rows("update task_runs set finished_at = %s", LONG_AGO)


def began_while_held(run: Run, name: str, holder: str) -> bool:
    """Whether the first step of a session began when another one held its rows."""
    return run.after((name, 0), (holder, 0)) and not run.after((name, 0), (holder, 1))


def test_bulk_retries_of_two_queues_over_the_same_chains(interleaver: Interleaver) -> None:
    """The chains cross the queues and each other's ids, rows in the middle are held: busy, and no deadlock."""

    def prepare(session: Session) -> dict[str, Any]:
        one, two = session.add(), session.add(queue_name="other")
        held = [session.add(), session.add(queue_name="other")]
        behind = [
            session.add(queue_name=queue, status="WAITING", parent_id=parent, wait_count=1)
            for queue, parent in (("default", two), ("other", one))
        ]
        fail_all(session)
        assert [session.kind(task) for task in behind] == ["parent_failed"] * 2
        return {"heads": [one, two], "held": held, "behind": behind}

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited <= {"c"}
        made = run.made
        for place, name in enumerate(("a", "b")):
            head, held = made["heads"][place], made["held"][place]
            said = run.answers[name][0]
            assert said[head] in ("retried", "busy")
            assert said[held] in (["busy"] if began_while_held(run, name, "c") else ["retried", "busy"])
            expected = ["READY", "WAITING"] if said[head] == "retried" else ["FAILED", "FAILED"]
            assert [look.status(task) for task in (head, made["behind"][1 - place])] == expected

    interleaver.every_order(
        prepare,
        check,
        a=[retry_failed("default"), commit],
        b=[retry_failed("other"), commit],
        c=[hold, rollback],
    )


def test_bulk_retry_and_prune(interleaver: Interleaver) -> None:
    """A chain across queues: prune leaves held tasks, and tasks with a held step behind them."""

    def prepare(session: Session) -> dict[str, Any]:
        first = session.add(queue_name="other")
        second = session.add(status="WAITING", parent_id=first, wait_count=1)
        held, last = session.add(), session.add()
        fail_all(session)
        return {"first": first, "second": second, "held": [held], "last": last}

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited <= {"c"}
        left = {row[0] for row in look.rows("select result_id from task_runs")}
        retried = {task for task, answer in run.answers["a"][0].items() if answer == "retried"}
        assert retried <= left
        assert {look.status(task) for task in retried} <= {"READY"}
        assert run.made["second"] not in retried
        assert run.answers["b"][0] == 4 - len(left)

    interleaver.every_order(prepare, check, a=[retry_failed("default"), commit], b=[prune, commit], c=[hold, rollback])


@pytest.mark.parametrize("what", ["step", "workflow"])
def test_prune_and_a_held_step_or_chord(interleaver: Interleaver, what: str) -> None:
    """Only the task before the held step, or the tasks of the held chord, stay for a later call."""

    def prepare(session: Session) -> dict[str, Any]:
        if what == "step":
            kept = session.add_chain(2)
        else:
            _, members, callback = session.add_chord(1)
            kept = [*members, callback]
        other = session.add()
        fail_all(session)
        return {"held": kept[1:], "kept": kept, "other": other}

    def hold_it(session: Session, made: dict[str, Any]) -> None:
        if what == "step":
            hold(session, made)
        else:
            session.rows("select from workflow_runs for update")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited <= {"a"}
        left = [row[0] for row in look.rows("select result_id from task_runs order by result_id")]
        if began_while_held(run, "b", "a"):
            assert (run.answers["b"][0], left) == (1, run.made["kept"])
        assert run.answers["b"][0] + prune(look, None) == 3
        assert look.rows("select 1 from workflow_runs") == []

    interleaver.every_order(prepare, check, a=[hold_it, rollback], b=[prune, commit])


@pytest.mark.parametrize("what", ["step", "callback", "workflow"])
def test_retry_by_hand_and_what_depends_on_it(interleaver: Interleaver, what: str) -> None:
    """The UPDATE holds its row already: it is refused at once (55P03) and never waits."""

    def prepare(session: Session) -> dict[str, Any]:
        if what == "step":
            failed, _, held = session.add_chain(3)
        else:
            _, [failed], held = session.add_chord(1)
        session.fail(*session.claim(1))
        return {"failed": failed, "held": [held]}

    def hold_it(session: Session, made: dict[str, Any]) -> None:
        if what == "workflow":
            session.rows("select from workflow_runs for update")
        else:
            hold(session, made)

    def check(run: Run, look: Session) -> None:
        assert run.waited <= {"a"}
        if began_while_held(run, "b", "a"):
            assert [error.sqlstate for error in run.errors()] == ["55P03"]
            retry_by_hand(look, run.made)
        else:
            assert run.errors() == []
        assert [look.status(task) for task in (run.made["failed"], *run.made["held"])] == ["READY", "WAITING"]

    interleaver.every_order(prepare, check, a=[hold_it, rollback], b=[retry_by_hand, commit])


def test_bulk_retry_and_new_duplicates(interleaver: Interleaver) -> None:
    """A producer enqueues the specs of failed tasks just then: those are already_active, and stop no other."""

    def prepare(session: Session) -> dict[str, Any]:
        ids = [task for task, _ in session.enqueue_many(range(5))]
        fail_all(session)
        return {"ids": ids}

    def enqueue(session: Session, _made: Any) -> list[tuple[int, bool]]:
        return session.enqueue_many([3, 1])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        created = {number for number, (_, new) in zip((3, 1), run.answers["a"][0], strict=True) if new}
        assert run.answers["b"][0] == {
            task: "already_active" if number in created else "retried" for number, task in enumerate(run.made["ids"])
        }
        assert look.value("select count(*) from task_runs where status = 'READY'") == 5

    runs = interleaver.every_order(prepare, check, a=[enqueue, commit], b=[retry_failed("default"), commit])
    assert {name for run in runs for name in run.waited} == {"a", "b"}
