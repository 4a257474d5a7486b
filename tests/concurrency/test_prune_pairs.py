"""Prune against those who bring tasks back or start them, in every order."""

from __future__ import annotations

from typing import Any

from tests.concurrency.interleave import Interleaver, Run, commit
from tests.concurrency.sessions import Session

LONG_AGO = "2020-01-01"


def prune(session: Session, _: Any) -> int:
    return int(session.value("select reproq_prune_finished('1 day', 100)"))


def retry(session: Session, made: Any) -> str:
    return session.retry(made)


def test_prune_and_retry_of_a_failed_task(interleaver: Interleaver) -> None:
    """Pruned and missing, or retried and there: a task that an operator brought back is never deleted."""

    def prepare(session: Session) -> int:
        return session.add(status="FAILED", finished_at=LONG_AGO)

    def check(run: Run, session: Session) -> None:
        assert run.errors() == []
        pruned, retried = run.answers["a"][0], run.answers["b"][0]
        assert (pruned, retried) in ((1, "missing"), (0, "retried"))
        assert len(session.rows("select 1 from task_runs")) == 1 - pruned

    runs = interleaver.every_order(prepare, check, a=(prune, commit), b=(retry, commit))
    assert {run.answers["b"][0] for run in runs} == {"missing", "retried"}


def test_prune_and_retry_of_a_failed_member(interleaver: Interleaver) -> None:
    """The successes that the chord counts stay, or its failure goes first: a retried member never waits for ever."""

    def prepare(session: Session) -> int:
        workflow, (good, bad), callback = session.add_chord(2)
        session.complete(*session.claim(1))
        session.fail(*session.claim(1))
        session.rows("update task_runs set finished_at = %s where result_id = any (%s)", LONG_AGO, [good, bad])
        assert session.kind(callback) == "workflow_failed"
        assert workflow is not None
        return bad

    def check(run: Run, session: Session) -> None:
        assert run.errors() == []
        if run.answers["b"][0] == "retried":
            assert len(session.rows("select 1 from task_runs")) == 3

    interleaver.every_order(prepare, check, a=(prune, commit), b=(retry, commit))


def test_race_two_prunes(interleaver: Interleaver) -> None:
    """What one deletes the other steps over; none waits, none counts it twice."""

    def prepare(session: Session) -> None:
        for _ in range(3):
            session.add(status="SUCCESSFUL", finished_at=LONG_AGO)

    def check(run: Run, session: Session) -> None:
        assert run.errors() == []
        assert run.answers["a"][0] + run.answers["b"][0] == 3
        assert session.rows("select 1 from task_runs") == []

    interleaver.every_order(prepare, check, a=(prune, commit), b=(prune, commit))
