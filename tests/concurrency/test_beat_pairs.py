"""Beats against beats and against writers, in every order: a due run happens once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString

import pytest
from psycopg import sql

from tests.concurrency.interleave import Interleaver, Run, Step, commit, rollback
from tests.concurrency.sessions import Session

CRON = "*/5 * * * *"
FIRE: LiteralString = (
    "select scheduled_at, answer from reproq_schedule_fire('s', %s, %s, %s, %s::timestamptz[], %s::timestamptz)"
)


@dataclass
class Due:
    """The run that is due, and what each beat saw when it looked."""

    at: datetime
    seen: dict[str, list[Any]] = field(default_factory=dict)


def prepare(session: Session) -> Due:
    """A schedule, planned by a beat, with one run due."""
    for table in ("periodic_tasks", "periodic_occurrences"):
        session.rows(sql.SQL("delete from {}").format(sql.Identifier(table)))
    session.rows("select reproq_schedule_set('s', %s, 'app.tasks.tick')", CRON)
    (since,) = session.rows("select created_at from periodic_tasks")[0]
    at = since + timedelta(microseconds=1)
    assert session.rows(FIRE, CRON, "UTC", since, [], at) == [(None, "planned")]
    return Due(at)


def look(session: Session, due: Due) -> None:
    due.seen[session.name] = session.rows("select cron_expr, time_zone, since, now from reproq_schedules_due()")


def fire(session: Session, due: Due) -> list[Any]:
    """As a beat that has looked: occurrences of a changed expression are none, the next run is in an hour."""
    answers: list[Any] = []
    for cron_expr, zone, since, now in due.seen[session.name]:
        occurrences = [due.at] if cron_expr == CRON and since < due.at <= now else []
        answers += session.rows(FIRE, cron_expr, zone, since, occurrences, now + timedelta(hours=1))
    return answers


def sync(session: Session, _: Due) -> None:
    """Django's, by a clock of its own."""
    session.rows(
        "insert into periodic_tasks (name, cron_expr, task_path, next_run_at) values ('s', %s, 'app.tasks.tick', now())"
        " on conflict (name) do update set cron_expr = excluded.cron_expr, task_path = excluded.task_path,"
        " next_run_at = excluded.next_run_at + interval '5 minutes', updated_at = now()",
        CRON,
    )


def change(session: Session, _: Due) -> None:
    session.rows("select reproq_schedule_set('s', '7 7 * * *', 'app.tasks.tick')")


BEAT: tuple[Step, ...] = (look, fire, commit)


def happened_once(run: Run, session: Session) -> None:
    """After one more look by a beat that comes later."""
    assert run.errors() == []
    due: Due = run.made
    look(session, due)
    fire(session, due)
    assert session.rows("select scheduled_at from periodic_occurrences") == [(due.at,)]
    assert len(session.rows("select 1 from task_runs where spec_json ->> 'periodic_name' = 's'")) == 1
    look(session, due)
    assert due.seen[session.name] == []


def test_beats_two_beats(interleaver: Interleaver) -> None:
    """The first one enqueues; the other gets no row, and never waits."""
    runs = interleaver.every_order(prepare, happened_once, a=BEAT, b=BEAT)
    assert not any(run.waited for run in runs)


def test_beat_that_dies_before_its_commit(interleaver: Interleaver) -> None:
    """Its work is undone; the run is still due for the others."""
    interleaver.every_order(prepare, happened_once, a=(look, fire, rollback), b=BEAT)


@pytest.mark.parametrize("end", [commit, rollback])
def test_beat_and_a_sync(interleaver: Interleaver, end: Step) -> None:
    """Neither loses nor repeats the due run."""
    interleaver.every_order(prepare, happened_once, a=BEAT, b=(sync, end))


@pytest.mark.parametrize("end", [commit, rollback])
def test_beat_and_a_change_of_the_expression(interleaver: Interleaver, end: Step) -> None:
    """The run that was due is enqueued by the beat or by the change."""
    interleaver.every_order(prepare, happened_once, a=BEAT, b=(change, end))


def test_beat_and_a_removal(interleaver: Interleaver) -> None:
    """It runs once or not at all, and nothing is left due."""

    def at_most_once(run: Run, session: Session) -> None:
        assert run.errors() == []
        assert len(session.rows("select 1 from task_runs")) <= 1
        look(session, run.made)
        assert run.made.seen[session.name] == []

    def remove(session: Session, _: Due) -> None:
        session.rows("select reproq_schedule_rm('s')")

    interleaver.every_order(prepare, at_most_once, a=BEAT, b=(remove, commit))
