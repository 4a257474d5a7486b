"""Two or three sessions at work on one chord: every order, and what must hold in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, at_once, commit, rollback
from tests.concurrency.sessions import Attempt, Session


@dataclass
class Chord:
    """A chord whose members all run."""

    workflow: UUID
    members: list[Attempt]
    callback: int


def chord(number: int, **columns: Any) -> Any:
    def prepare(session: Session) -> Chord:
        workflow, _, callback = session.add_chord(number, **columns)
        return Chord(workflow, session.claim(number), callback)

    return prepare


def member(number: int, action: str) -> Step:
    """A step that ends the member of this number: `complete`, `fail` or `release`."""
    return lambda session, made: getattr(session, action)(made.members[number])


def cancel_callback(session: Session, made: Chord) -> str:
    return session.cancel(made.callback)


def cancel_member(number: int) -> Step:
    return lambda session, made: session.cancel(made.members[number].result_id)


def reclaim(session: Session, _made: Any) -> dict[int, str]:
    return session.reclaim()


def counts(look: Session, made: Chord) -> tuple[str, int, int]:
    row = look.rows("select status, success_count, failure_count from workflow_runs")
    status, good, bad = row[0]
    return status, good, bad


def test_last_members_complete_together(interleaver: Interleaver) -> None:
    """The callback becomes READY exactly when all members have succeeded, by whichever was last."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert counts(look, run.made) == ("WAITING_CALLBACK", 2, 0)
        assert [attempt.result_id for attempt in look.claim(10)] == [run.made.callback]

    interleaver.every_order(chord(2), check, a=[member(0, "complete"), commit], b=[member(1, "complete"), commit])


def test_race_three_members_complete_together(interleaver: Interleaver) -> None:
    """The same with three: no count is lost between any of them."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert counts(look, run.made) == ("WAITING_CALLBACK", 3, 0)
        assert look.status(run.made.callback) == "READY"

    steps: list[list[Step]] = [[member(number, "complete"), commit] for number in range(3)]
    interleaver.every_order(chord(3), check, a=steps[0], b=steps[1], c=steps[2])


def test_last_member_rolls_back(interleaver: Interleaver) -> None:
    """A member whose end rolled back has not ended: the callback waits."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert counts(look, run.made)[0] == "RUNNING"
        assert look.status(run.made.callback) == "WAITING"
        assert look.complete(run.made.members[0]) == ["ok"]
        assert look.status(run.made.callback) == "READY"

    interleaver.every_order(chord(2), check, a=[member(0, "complete"), rollback], b=[member(1, "complete"), commit])


def test_members_complete_and_fail(interleaver: Interleaver) -> None:
    """One member fails while the other completes: the chord has failed and its callback has ended."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert counts(look, run.made) == ("FAILED", 1, 1)
        assert (look.status(run.made.callback), look.kind(run.made.callback)) == ("FAILED", "workflow_failed")

    interleaver.every_order(chord(2), check, a=[member(0, "complete"), commit], b=[member(1, "fail"), commit])


def test_member_fails_for_now_and_the_last(interleaver: Interleaver) -> None:
    """A member that will be retried keeps the chord open."""

    def retried(session: Session, made: Chord) -> list[str]:
        return session.fail(made.members[1], retryable=True)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert look.status(run.made.callback) == "WAITING"

    interleaver.every_order(chord(2), check, a=[member(0, "complete"), commit], b=[retried, commit])


def test_member_fails_and_callback_is_cancelled(interleaver: Interleaver) -> None:
    """The callback ends once, by the cancel or by its chord."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["a"][0] == ["failed"]
        kinds = {"cancelled": "cancelled", "terminal": "workflow_failed"}
        assert look.kind(run.made.callback) == kinds[run.answers["b"][0]]
        assert (
            look.value(
                "select jsonb_array_length(errors_json) from task_runs where status = 'FAILED' and result_id = %s",
                run.made.callback,
            )
            == 1
        )
        assert counts(look, run.made)[0] == "FAILED"

    interleaver.every_order(chord(1), check, a=[member(0, "fail"), commit], b=[cancel_callback, commit])


def test_last_member_completes_and_callback_is_cancelled(interleaver: Interleaver) -> None:
    """`cancelled` means the callback never starts, before or after the last member made it READY."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert (run.answers["a"][0], run.answers["b"][0]) == (["ok"], "cancelled")
        assert (look.status(run.made.callback), look.kind(run.made.callback)) == ("FAILED", "cancelled")
        assert counts(look, run.made)[0] == "FAILED"
        assert look.claim(10) == []

    interleaver.every_order(chord(1), check, a=[member(0, "complete"), commit], b=[cancel_callback, commit])


def test_member_is_cancelled_while_it_completes(interleaver: Interleaver) -> None:
    """A running member's success and its cancel, a third member ending at the same time: one verdict, no deadlock."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        made: Chord = run.made
        if run.answers["a"][0] == ["busy"]:
            assert look.complete(made.members[0]) == ["ok"]
        assert look.status(made.members[0].result_id) == "SUCCESSFUL"
        assert counts(look, made) == ("WAITING_CALLBACK", 2, 0)

    interleaver.every_order(
        chord(2),
        check,
        a=[member(0, "complete"), commit],
        b=[cancel_member(0), commit],
        c=[at_once(member(1, "complete"))],
    )


def test_ready_member_is_cancelled_while_another_completes(interleaver: Interleaver) -> None:
    """A member that never started is cancelled: the chord fails, in any order with its sibling's success."""

    def prepare(session: Session) -> Chord:
        workflow, members, callback = session.add_chord(2)
        [attempt] = session.claim(1)
        assert attempt.result_id == members[0]
        return Chord(workflow, [attempt, Attempt(members[1], attempt.token)], callback)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert (run.answers["a"][0], run.answers["b"][0]) == (["ok"], "cancelled")
        assert counts(look, run.made) == ("FAILED", 1, 1)
        assert look.kind(run.made.callback) == "workflow_failed"

    interleaver.every_order(prepare, check, a=[member(0, "complete"), commit], b=[cancel_member(1), commit])


def test_member_completes_while_its_failed_sibling_is_retried(interleaver: Interleaver) -> None:
    """A retry opens the chord again, and the sibling's success is counted, whichever commits first."""

    def prepare(session: Session) -> Chord:
        made: Chord = chord(2)(session)
        assert session.fail(made.members[1]) == ["failed"]
        assert session.status(made.callback) == "FAILED"
        return made

    def retry(session: Session, made: Chord) -> str:
        return session.retry(made.members[1].result_id)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert (run.answers["a"][0], run.answers["b"][0]) == (["ok"], "retried")
        assert counts(look, run.made) == ("RUNNING", 1, 0)
        assert look.status(run.made.callback) == "WAITING"
        assert look.complete(*look.claim(10)) == ["ok"]
        assert counts(look, run.made) == ("WAITING_CALLBACK", 2, 0)

    interleaver.every_order(prepare, check, a=[member(0, "complete"), commit], b=[retry, commit])


@pytest.mark.parametrize("bad", [False, True])
def test_chord_arrives_row_by_row_while_its_members_end(interleaver: Interleaver, bad: bool) -> None:
    """Members may end before the rows of callback and workflow are there; the next reclaim settles them."""
    workflow = UUID(int=7)

    def prepare(session: Session) -> list[Attempt]:
        session.add(workflow_id=workflow)
        session.add(workflow_id=workflow)
        return session.claim(2)

    def end(session: Session, made: list[Attempt]) -> Any:
        return session.fail(made[1]) if bad else session.complete(made[1])

    def arrive(session: Session, _made: Any) -> int:
        callback = session.add(status="WAITING", wait_count=2, workflow_id=workflow)
        session.rows(
            "insert into workflow_runs (workflow_id, expected_count, callback_result_id) values (%s, 2, %s)",
            workflow,
            callback,
        )
        return callback

    def complete(session: Session, made: list[Attempt]) -> Any:
        return session.complete(made[0])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        look.reclaim()
        callback = run.answers["b"][0]
        assert look.status(callback) == ("FAILED" if bad else "READY")

    interleaver.every_order(prepare, check, a=[complete, end, commit], b=[arrive, commit])


def test_expired_leases_of_siblings_are_reclaimed_while_one_completes(interleaver: Interleaver) -> None:
    """Reclaim fails a member for good while its sibling completes: the chord fails, in either order."""

    def prepare(session: Session) -> Chord:
        made: Chord = chord(2, max_attempts=1)(session)
        session.rows(
            "update task_runs set leased_until = reproq_now() - interval '1 s' where result_id = %s",
            made.members[1].result_id,
        )
        return made

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["b"][0] == {run.made.members[1].result_id: "failed"}
        assert counts(look, run.made) == ("FAILED", 1, 1)
        assert look.kind(run.made.callback) == "workflow_failed"

    interleaver.every_order(prepare, check, a=[member(0, "complete"), commit], b=[reclaim, commit])


@pytest.mark.parametrize("status", ["FAILED", "SUCCESSFUL", "CANCELLED"])
def test_callback_is_ended_by_hand_while_the_last_member_completes(interleaver: Interleaver, status: str) -> None:
    """A direct UPDATE holds its row before the chord's; it must not wait for the chord, or both would wait for ever."""

    def by_hand(session: Session, made: Chord) -> None:
        session.rows("update task_runs set status = %s where result_id = %s", status, made.callback)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.answers["a"][0] == ["ok"]
        look.reclaim()
        assert look.status(run.made.callback) == status
        assert counts(look, run.made)[0] == ("SUCCESSFUL" if status == "SUCCESSFUL" else "FAILED")

    interleaver.every_order(chord(1), check, a=[member(0, "complete"), commit], b=[by_hand, commit])


@pytest.mark.parametrize("status", ["FAILED", "SUCCESSFUL", "READY"])
def test_member_is_moved_by_hand_while_its_sibling_ends(interleaver: Interleaver, status: str) -> None:
    """A direct UPDATE of a member concurrent with its sibling's end: counted by one of them, or by the next reclaim."""

    def by_hand(session: Session, made: Chord) -> None:
        session.rows("update task_runs set status = %s where result_id = %s", status, made.members[1].result_id)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        look.reclaim()
        expected = {"FAILED": "FAILED", "SUCCESSFUL": "READY", "READY": "WAITING"}
        assert look.status(run.made.callback) == expected[status]

    interleaver.every_order(chord(2), check, a=[member(0, "complete"), commit], b=[by_hand, commit])
