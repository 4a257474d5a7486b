"""Two sessions that end, renew, give back or take away one attempt: every order, and what must hold in each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, commit, rollback
from tests.concurrency.sessions import Attempt, Session


def complete(session: Session, made: list[Attempt]) -> list[str]:
    return session.complete(*made)


def fail(session: Session, made: list[Attempt]) -> list[str]:
    return session.fail(*made)


def fail_for_now(session: Session, made: list[Attempt]) -> list[str]:
    return session.fail(*made, retryable=True)


def release(session: Session, made: list[Attempt]) -> list[str]:
    return session.release(*made)


def heartbeat(session: Session, made: list[Attempt]) -> list[str]:
    return session.heartbeat(made, worker="look")


def cancel(session: Session, made: list[Attempt]) -> str:
    return session.cancel(made[0].result_id)


def reclaim(session: Session, _made: list[Attempt]) -> dict[int, str]:
    return session.reclaim()


def hold_row(session: Session, made: list[Attempt]) -> None:
    """What an application does that saves its task's metadata inside a long transaction."""
    session.rows("update task_runs set metadata_json = '{\"at\": 1}' where result_id = %s", made[0].result_id)


def running(session: Session, *, expired: bool = False, number: int = 1, **columns: Any) -> list[Attempt]:
    """Tasks that are claimed, with leases that have expired if told so."""
    for _ in range(number):
        session.add(**columns)
    attempts = session.claim(number)
    assert len(attempts) == number
    if expired:
        session.rows("update task_runs set leased_until = reproq_now() - interval '1 s'")
    return attempts


@pytest.mark.parametrize("columns", [{}, {"lock_key": "k"}, {"max_attempts": 1}])
@pytest.mark.parametrize("end", [complete, fail, fail_for_now, release])
def test_end_and_reclaim(interleaver: Interleaver, end: Step, columns: dict[str, Any]) -> None:
    """The end of an attempt whose lease expired counts if it comes before the reclaim, else it is lost: never both."""

    def prepare(session: Session) -> list[Attempt]:
        return running(session, expired=True, **columns)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        [answer], reclaimed = run.answers["a"][0], run.answers["b"][0]
        # An attempt that the reclaim failed for good has ended badly: a failure has been said already then.
        gone = (
            ("lost", "busy", "already")
            if columns.get("max_attempts") == 1 and end is not complete
            else ("lost", "busy")
        )
        assert (answer in gone) == bool(reclaimed), (answer, reclaimed)
        if answer == "busy":
            assert look.complete(*run.made) == ["lost"]
        lost = look.value("select lost_count from task_runs")
        attempts = look.value("select attempts from task_runs")
        failed = look.value("select coalesce(bool_or(status = 'FAILED'), false) from task_runs")
        if reclaimed:
            assert reclaimed == {run.made[0].result_id: "failed" if columns.get("max_attempts") == 1 else "ready"}
            assert (lost, attempts, failed) == (0 if failed else 1, 1, columns.get("max_attempts") == 1)
        else:
            assert lost == 0

    interleaver.every_order(prepare, check, a=[end, commit], b=[reclaim, commit])


def test_reclaim_rolled_back(interleaver: Interleaver) -> None:
    """A reclaim that rolls back leaves the attempt its owner's."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        if run.answers["a"][0] == ["busy"]:
            assert look.complete(*run.made) == ["ok"]
        assert look.status(run.made[0].result_id) == "SUCCESSFUL"

    interleaver.every_order(
        lambda session: running(session, expired=True), check, a=[complete, commit], b=[reclaim, rollback]
    )


@pytest.mark.parametrize("end", [complete, fail_for_now, release])
def test_end_and_cancel(interleaver: Interleaver, end: Step) -> None:
    """A cancel never undoes an end; after a cancel request a success is a success, anything else ends as cancelled."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        task = run.made[0].result_id
        [answer], said = run.answers["a"][0], run.answers["b"][0]
        if answer == "busy":
            assert said == "requested"
            look.commit()
            [answer] = end(look, run.made)
        assert answer in ("ok", "retry", "failed", "cancelled")
        asked_first = said == "requested"
        if end is complete:
            assert (look.status(task), said) == ("SUCCESSFUL", "requested" if asked_first else "terminal")
        else:
            assert look.status(task) == "FAILED"  # while it ran: ended by the end; afterwards: by the cancel

    interleaver.every_order(running, check, a=[end, commit], b=[cancel, commit])


@pytest.mark.parametrize(
    ("one", "other"), [(complete, complete), (complete, fail), (fail, fail_for_now), (release, complete)]
)
def test_race_two_ends_of_one_attempt(interleaver: Interleaver, one: Step, other: Step) -> None:
    """Of two calls for one attempt the first counts; a repetition gets `already`, a success too late `lost`, and what
    is said of an attempt that has succeeded `succeeded`."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        answers = [run.answers["a"][0][0], run.answers["b"][0][0]]
        counted = [answer for answer in answers if answer in ("ok", "failed", "retry")]
        assert len(counted) == 1, answers
        assert {*answers} - {*counted} <= {"already", "busy"} | (
            {"lost", "succeeded"} if complete in (one, other) else set()
        )
        succeeded = look.status(run.made[0].result_id) == "SUCCESSFUL"
        assert look.complete(*run.made) == ["already" if succeeded else "lost"]

    interleaver.every_order(running, check, a=[one, commit], b=[other, commit])


@pytest.mark.parametrize("columns", [{}, {"lock_key": "k"}])
def test_reclaim_and_heartbeat(interleaver: Interleaver, columns: dict[str, Any]) -> None:
    """A late heartbeat saves its lease or loses it; a task that was reclaimed is never renewed."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        [answer], reclaimed = run.answers["a"][0], run.answers["b"][0]
        assert (answer == "ok") != bool(reclaimed), (answer, reclaimed)
        if reclaimed:
            assert answer in ("busy", "lost")
            assert look.heartbeat(run.made) == ["lost"]
        else:
            assert look.value("select leased_until > now() from task_runs")

    interleaver.every_order(
        lambda session: running(session, expired=True, **columns), check, a=[heartbeat, commit], b=[reclaim, commit]
    )


def test_heartbeat_and_a_held_row(interleaver: Interleaver) -> None:
    """A session that holds one row delays its renewal only: `busy` at once, the neighbours are renewed."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited == set() or run.events[0][1] == "b"  # it is the other one that waits, if any
        while_held = run.after(("b", 0), ("a", 0)) and run.after(("a", 1), ("b", 0))
        assert run.answers["b"][0] == (["busy", "ok"] if while_held else ["ok", "ok"])
        look.commit()
        assert look.heartbeat(run.made) == ["ok", "ok"]

    interleaver.every_order(
        lambda session: running(session, number=2), check, a=[hold_row, commit], b=[heartbeat, commit]
    )


@pytest.mark.parametrize("columns", [{}, {"concurrency_key": "k", "concurrency_limit": 2}])
@pytest.mark.parametrize("end", [complete, fail, fail_for_now, release])
def test_end_and_a_held_row(interleaver: Interleaver, end: Step, columns: dict[str, Any]) -> None:
    """A session that holds one row makes its end `busy`; the rest of the batch ends, and asking again ends it too."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert "b" not in run.waited
        while_held = run.after(("b", 0), ("a", 0)) and run.after(("a", 1), ("b", 0))
        first, second = run.answers["b"][0]
        assert second in ("ok", "failed", "retry")
        assert (first == "busy") == while_held
        if while_held:
            assert end(look, run.made) == [second, "already"]

    interleaver.every_order(
        lambda session: running(session, number=2, **columns), check, a=[hold_row, commit], b=[end, commit]
    )


def test_heartbeat_and_complete(interleaver: Interleaver) -> None:
    """A renewal concurrent with the end of the same attempt: both or one of them `busy`; a late one says `already`."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        [renewed], [ended] = run.answers["a"][0], run.answers["b"][0]
        assert (renewed, ended) in [("ok", "ok"), ("ok", "busy"), ("busy", "ok"), ("already", "ok")]
        if ended == "busy":
            assert look.complete(*run.made) == ["ok"]

    interleaver.every_order(running, check, a=[heartbeat, commit], b=[complete, commit])


def test_race_two_reclaims(interleaver: Interleaver) -> None:
    """Each expired lease is returned once, charged once, by one of two caretakers."""

    def prepare(session: Session) -> list[Attempt]:
        return running(session, expired=True, number=3, lock_key=None)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        moved = [*run.answers["a"][0], *run.answers["b"][0]]
        assert sorted(moved) == sorted(attempt.result_id for attempt in run.made)
        assert look.value("select array_agg(distinct lost_count) from task_runs") == [1]

    interleaver.every_order(prepare, check, a=[reclaim, commit], b=[reclaim, commit])


def test_batches_of_keyed_tasks_in_opposite_orders(interleaver: Interleaver) -> None:
    """Batches that share keys and rows wait for each other in one order, whatever order they name tasks in."""

    def prepare(session: Session) -> list[Attempt]:
        for key in ("k", "l", "m"):
            for _ in range(2):
                session.add(concurrency_key=key, concurrency_limit=2, lock_key=None)
        return session.claim(6)

    def forwards(session: Session, made: list[Attempt]) -> list[str]:
        return session.complete(*made)

    def backwards(session: Session, made: list[Attempt]) -> list[str]:
        return session.fail(*reversed(made))

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        answers = (run.answers["a"][0], run.answers["b"][0])
        assert answers in ((["ok"] * 6, ["succeeded"] * 6), (["lost"] * 6, ["failed"] * 6))
        assert look.value("select count(*) from task_runs where finished_at is not null") == 6

    interleaver.every_order(prepare, check, a=[forwards, commit], b=[backwards, commit])


def test_stale_attempt_of_the_same_worker(interleaver: Interleaver) -> None:
    """The fence is the token: the first attempt of a worker cannot end the second one of the same worker's name."""

    def prepare(session: Session) -> list[Attempt]:
        [first] = running(session, expired=True)
        assert session.reclaim() == {first.result_id: "ready"}
        [second] = session.claim()
        return [first, second]

    def stale(session: Session, made: list[Attempt]) -> list[str]:
        renewed = session.heartbeat(made[:1], worker="look")[0]
        return [renewed, *session.complete(made[0])]

    def fresh(session: Session, made: list[Attempt]) -> list[str]:
        return session.fail(made[1])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        first, second = run.made
        assert run.answers["a"][0] == ["lost", "lost"]
        if run.answers["b"][0] == ["busy"]:
            assert look.fail(second) == ["failed"]
        assert (look.heartbeat([first]), look.release(first)) == (["lost"], ["lost"])
        assert look.status(first.result_id) == "FAILED"

    interleaver.every_order(prepare, check, a=[stale, commit], b=[fresh, commit])
