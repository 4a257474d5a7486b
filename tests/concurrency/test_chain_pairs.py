"""Two or three sessions at work on one chain: every order, and what must hold in each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, at_once, commit
from tests.concurrency.sessions import Attempt, Session


@dataclass
class Chain:
    """A chain of three whose first step runs."""

    first: Attempt
    rest: list[int] = field(default_factory=list)


def chain(session: Session) -> Chain:
    ids = session.add_chain(3)
    return Chain(session.claim()[0], ids[1:])


@pytest.mark.parametrize("end", ["fail", "complete"])
def test_parent_ends_while_it_is_retried(interleaver: Interleaver, end: str) -> None:
    """An operator's retry concurrent with the end of the same step: its dependents wait or go on as the step does."""

    def end_first(session: Session, made: Chain) -> Any:
        return getattr(session, end)(made.first)

    def retry(session: Session, made: Chain) -> str:
        return session.retry(made.first.result_id)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        made: Chain = run.made
        if run.answers["a"][0] == ["busy"]:  # the retry looked at the row just then
            assert end_first(look, made) in (["failed"], ["ok"])
        states = [look.status(task) for task in (made.first.result_id, *made.rest)]
        if end == "complete":
            assert (run.answers["b"][0], states) == ("not_failed", ["SUCCESSFUL", "READY", "WAITING"])
        elif run.answers["b"][0] == "retried":
            assert states == ["READY", "WAITING", "WAITING"]
        else:
            assert states == ["FAILED"] * 3
            assert [look.kind(task) for task in made.rest] == ["parent_failed"] * 2

    interleaver.every_order(chain, check, a=[end_first, commit], b=[retry, commit])


def test_race_two_retries(interleaver: Interleaver) -> None:
    """A failed step is retried once; the other call finds it active."""

    def prepare(session: Session) -> Chain:
        made = chain(session)
        session.fail(made.first)
        return made

    def retry(session: Session, made: Chain) -> str:
        return session.retry(made.first.result_id)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert sorted([run.answers["a"][0], run.answers["b"][0]]) == ["not_failed", "retried"]
        assert [look.status(task) for task in run.made.rest] == ["WAITING", "WAITING"]

    interleaver.every_order(prepare, check, a=[retry, commit], b=[retry, commit])


@pytest.mark.parametrize("end", ["fail", "complete"])
def test_step_is_cancelled_while_its_predecessor_ends(interleaver: Interleaver, end: str) -> None:
    """The middle of a chain is cancelled while the first step ends: it never starts, nor does what is behind it."""

    def end_first(session: Session, made: Chain) -> Any:
        return getattr(session, end)(made.first)

    def cancel(session: Session, made: Chain) -> str:
        return session.cancel(made.rest[0])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["b"][0] in (["cancelled"] if end == "complete" else ["cancelled", "terminal"])
        assert [look.status(task) for task in run.made.rest] == ["FAILED", "FAILED"]
        assert look.claim(10) == []

    interleaver.every_order(chain, check, a=[end_first, commit], b=[cancel, commit])


@pytest.mark.parametrize("end", ["fail", "complete"])
def test_last_step_is_cancelled_while_the_first_ends(interleaver: Interleaver, end: str) -> None:
    """The end of a chain is cancelled while the first step fails over the same rows: no deadlock, all have ended."""

    def end_first(session: Session, made: Chain) -> Any:
        return getattr(session, end)(made.first)

    def cancel(number: int) -> Step:
        return lambda session, made: session.cancel(made.rest[number])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert {run.answers["b"][0], run.answers["c"][0]} <= {"cancelled", "terminal"}
        assert [look.status(task) for task in run.made.rest] == ["FAILED", "FAILED"]

    interleaver.every_order(chain, check, a=[end_first, commit], b=[cancel(1), commit], c=[at_once(cancel(0))])


def test_child_arrives_while_its_parent_is_deleted(interleaver: Interleaver) -> None:
    """A session that deletes a task in the moment in which a step is put behind it leaves a step that reclaim ends."""

    def prepare(session: Session) -> int:
        return session.add()

    def delete(session: Session, made: int) -> None:
        session.rows("delete from task_runs where result_id = %s", made)

    def insert_child(session: Session, made: int) -> int:
        return session.add(status="WAITING", parent_id=made, wait_count=1)

    def check(run: Run, look: Session) -> None:
        refused = [error.sqlstate for error in run.errors()]
        if refused:
            assert refused == ["23503"]  # the parent was gone
            return
        look.reclaim()
        assert look.status(run.answers["b"][0]) == "WAITING"  # the rest of its workflow may be on its way
        look.rows("update task_runs set updated_at = now() - interval '2 minutes'")
        look.reclaim()
        assert look.kind(run.answers["b"][0]) == "parent_failed"

    interleaver.every_order(prepare, check, a=[delete, commit], b=[insert_child, commit])


@pytest.mark.parametrize(("end", "status"), [("complete", "READY"), ("fail", "FAILED")])
def test_child_arrives_while_its_parent_ends(interleaver: Interleaver, end: str, status: str) -> None:
    """A step that is inserted while its predecessor ends is moved on by the predecessor or by the next reclaim."""

    def prepare(session: Session) -> Chain:
        session.add()
        return Chain(session.claim()[0])

    def end_parent(session: Session, made: Chain) -> Any:
        return getattr(session, end)(made.first)

    def insert_child(session: Session, made: Chain) -> int:
        return session.add(status="WAITING", parent_id=made.first.result_id, wait_count=1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited == set()
        assert run.answers["a"][0][0] in ("ok", "failed")
        look.reclaim()
        assert look.status(run.answers["b"][0]) == status

    interleaver.every_order(prepare, check, a=[end_parent, commit], b=[insert_child, commit])
