"""A completion that claims, concurrent with another session: every order, and what must hold in each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, commit, rollback
from tests.concurrency.sessions import Attempt, Session

Ended = tuple[list[str], list[Attempt]]


def end_first(session: Session, made: list[Attempt]) -> Ended:
    return session.complete_and_claim(made[0], limit=2)


def end_second(session: Session, made: list[Attempt]) -> Ended:
    return session.complete_and_claim(made[1], limit=2)


def end_both(session: Session, made: list[Attempt]) -> Ended:
    return session.complete_and_claim(*reversed(made), limit=2)


def claim(session: Session, _made: Any) -> Ended:
    return [], session.claim(10)


def hold_first(session: Session, made: list[Attempt]) -> None:
    session.rows("update task_runs set metadata_json = '{}' where result_id = %s", made[0].result_id)


def claimed(run: Run) -> list[int]:
    """The tasks that the sessions took, in all."""
    ended = [answer for said in run.answers.values() for answer in said if isinstance(answer, tuple)]
    return [attempt.result_id for _, attempts in ended for attempt in attempts]


@pytest.mark.parametrize("other", [end_second, claim])
@pytest.mark.parametrize("columns", [{}, {"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 2}])
def test_complete_and_claim_and_another_claim(interleaver: Interleaver, other: Step, columns: dict[str, Any]) -> None:
    """No task is taken twice, no key has two holders, and none of the two waits for the other's claim."""

    def prepare(session: Session) -> list[Attempt]:
        session.add(**columns)
        session.add(**{**columns, "lock_key": "other"} if "lock_key" in columns else columns)
        made = session.claim(2)
        for _ in range(4):
            session.add(**columns)
        return made

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        taken = claimed(run)
        assert len(taken) == len(set(taken))
        holders = look.value("select count(*) from task_runs where status = 'RUNNING' and lock_key = 'k'")
        assert holders <= 1
        assert look.value("select count(*) from task_runs where status = 'RUNNING' and concurrency_key = 'k'") <= 2

    interleaver.every_order(prepare, check, a=[end_first, commit], b=[other, commit])


def test_complete_and_claim_of_the_last_members_of_a_chord(interleaver: Interleaver) -> None:
    """The callback becomes READY once, and one of the two claims at most takes it."""

    def prepare(session: Session) -> list[Attempt]:
        session.add_chord(2)
        return session.claim(2)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(claimed(run)) + len(look.claim(10)) == 1

    interleaver.every_order(prepare, check, a=[end_first, commit], b=[end_second, commit])


def test_complete_and_claim_twice_in_opposite_orders(interleaver: Interleaver) -> None:
    """Two calls about the same attempts of two keys: one ends them, the other is told so; no deadlock."""

    def prepare(session: Session) -> list[Attempt]:
        session.add(lock_key="k")
        session.add(lock_key="other")
        made = session.claim(2)
        session.add(lock_key="other")
        session.add(lock_key="k")
        return made

    def end_in_order(session: Session, made: list[Attempt]) -> Ended:
        return session.complete_and_claim(*made, limit=2)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        answers = [answer for said in run.answers.values() for ended in said[:1] for answer in ended[0]]
        assert sorted(answers) in (["already", "already", "ok", "ok"], ["busy", "busy", "ok", "ok"])
        assert len(claimed(run)) == 2

    interleaver.every_order(prepare, check, a=[end_in_order, commit], b=[end_both, commit])


def test_complete_and_claim_and_a_held_row(interleaver: Interleaver) -> None:
    """An attempt whose row another session holds is `busy`; the claim goes on, and nothing waits."""

    def prepare(session: Session) -> list[Attempt]:
        for _ in range(3):
            session.add()
        return session.claim(1)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert "a" not in run.waited
        (answer,), taken = run.answers["a"][0]
        assert answer in ("ok", "busy")
        assert len(taken) == 2

    interleaver.every_order(prepare, check, a=[end_first, commit], b=[hold_first, commit])


def test_complete_and_claim_rolled_back_has_done_nothing(interleaver: Interleaver) -> None:
    """Its attempt still runs, and the other session can have what it had claimed."""

    def prepare(session: Session) -> list[Attempt]:
        session.add(lock_key="k")
        made = session.claim(1)
        session.add(lock_key="k")
        return made

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert look.value("select status from task_runs where result_id = %s", run.made[0].result_id) == "RUNNING"
        assert run.answers["b"][0][1] == []
        assert look.complete(*run.made) == ["ok"]
        assert len(look.claim(10)) == 1

    interleaver.every_order(prepare, check, a=[end_first, rollback], b=[claim, commit])


def test_complete_and_claim_never_waits_for_a_bucket(interleaver: Interleaver) -> None:
    """It holds the locks of a completion: a session that holds a bucket must not make it wait."""

    def prepare(session: Session) -> list[Attempt]:
        session.limit_set("queue:default", 100, 10)
        session.add(lock_key="k")
        made = session.claim(1)
        session.add()
        return made

    def hold_bucket(session: Session, _made: Any) -> None:
        session.rows("select from rate_limits for update")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["a"][0] == (["ok"], [])
        assert not run.waited

    interleaver.every_order(prepare, check, a=[end_first, commit], b=[hold_bucket, commit])
