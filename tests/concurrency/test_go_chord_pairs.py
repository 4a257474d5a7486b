"""Two programs end members of one chord at the same time, one of them a Go worker: every order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from tests.concurrency.interleave import Interleaver, Run, Step, commit
from tests.concurrency.sessions import Attempt, Session
from tests.sql.go_worker import GoWorker


@dataclass
class Chord:
    """A chord whose members all run: the first ones here, the last two at a Go worker."""

    workflow: UUID
    members: list[int]
    ours: list[Attempt]
    callback: int


def go(session: Session) -> GoWorker:
    return GoWorker(session.connection)


def chord(number: int) -> Any:
    def prepare(session: Session) -> Chord:
        workflow, members, callback = session.add_chord(number)
        ours = session.claim(number - 2) if number > 2 else []
        for _ in range(2):
            go(session).claim()
        return Chord(workflow, members, ours, callback)

    return prepare


def ours(session: Session, made: Chord) -> list[str]:
    return session.complete(*made.ours)


def theirs(place: int, action: str = "succeed") -> Step:
    """The member at this place ends at the Go worker, whose transaction goes on until the next step."""
    return lambda session, made: getattr(go(session), action)(made.members[place])


def test_last_members_end_at_two_go_workers(interleaver: Interleaver) -> None:
    """The one that waited for the other's chord counts both, and starts the callback at once."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        row = look.rows("select status, success_count, failure_count from workflow_runs")
        assert row == [("WAITING_CALLBACK", 2, 0)]
        assert [attempt.result_id for attempt in look.claim(10)] == [run.made.callback]

    interleaver.every_order(chord(2), check, a=[theirs(0), commit], b=[theirs(1), commit])


@pytest.mark.parametrize("action", ["succeed", "fail"])
def test_last_members_end_here_and_at_a_go_worker(interleaver: Interleaver, action: str) -> None:
    """Whichever program is last: the callback starts when all members succeeded, and ends when one failed."""

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        look.complete(*run.made.ours)  # what was busy is asked again, as a worker does
        look.commit()
        (row,) = look.rows("select status, success_count, failure_count from workflow_runs")
        if action == "succeed":
            assert row == ("WAITING_CALLBACK", 3, 0)
            assert look.status(run.made.callback) == "READY"
        else:
            # A Go worker that waits for a chord which fails meanwhile does not count its own member.
            assert row in (("FAILED", 2, 1), ("FAILED", 1, 1))
            assert look.kind(run.made.callback) == "workflow_failed"

    interleaver.every_order(chord(3), check, a=[ours, commit], b=[theirs(1, action), commit], c=[theirs(2), commit])
