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
def test_race_two_producers_of_one_spec(interleaver: Interleaver, end: Step) -> None:
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


def by_spec(session: Session, _made: Any) -> int:
    return session.enqueue(1)


def by_key(session: Session, _made: Any) -> int:
    return session.enqueue_unique("k", 1)


@pytest.mark.parametrize("end", [commit, rollback])
@pytest.mark.parametrize(
    "more", [{}, {"unique_for": "1 h"}, {"on_duplicate": "replace"}], ids=["keep", "for", "replace"]
)
def test_race_two_producers_of_one_key(interleaver: Interleaver, end: Step, more: dict[str, str]) -> None:
    """One key, two producers: one task, and both know it; if one rolls back the other's stands."""

    def enqueue_key(session: Session, _made: Any) -> int:
        return session.enqueue_unique("k", 0, **more)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        one, other = run.answers["a"][0], run.answers["b"][0]
        assert active(look) == 1
        assert look.status(other) == "READY"
        assert end is rollback or one == other

    interleaver.every_order(lambda _: None, check, a=[enqueue_key, end], b=[enqueue_key, commit])


def test_race_three_producers_of_a_key_that_was_used(interleaver: Interleaver) -> None:
    """The key's last task has ended: of three producers at once one makes the next task, also when one rolls back."""

    def prepare(session: Session) -> int:
        first = session.enqueue_unique("k")
        session.complete(*session.claim())
        return first

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert active(look) == 1
        b, c = run.answers["b"][0], run.answers["c"][0]
        assert b == c != run.made

    interleaver.every_order(prepare, check, a=[by_key, rollback], b=[by_key, commit], c=[at_once(by_key)])


@pytest.mark.parametrize("enqueue_duplicate", [by_spec, by_key])
def test_producers_that_meet_a_queued_duplicate(interleaver: Interleaver, enqueue_duplicate: Step) -> None:
    """They hold it together: neither waits for the other's transaction."""

    def prepare(session: Session) -> int:
        return int(enqueue_duplicate(session, None))

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert run.waited == set()
        assert run.answers["a"][0] == run.answers["b"][0] == run.made

    interleaver.every_order(prepare, check, a=[enqueue_duplicate, commit], b=[enqueue_duplicate, commit])


@pytest.mark.parametrize("end", [commit, rollback])
@pytest.mark.parametrize("enqueue_duplicate", [by_spec, by_key])
def test_claim_of_a_duplicate_that_is_held(interleaver: Interleaver, enqueue_duplicate: Step, end: Step) -> None:
    """The lost update: the producer writes its data and meets a READY duplicate. No run between that and its commit.

    So some run sees what a producer committed; with a spec's duplicate, if it was READY still.
    """

    def prepare(session: Session) -> int:
        session.rows("create table if not exists test_data (value integer not null)")
        session.rows("delete from test_data")
        session.rows("insert into test_data values (0)")
        return int(enqueue_duplicate(session, None))

    def write_and_enqueue(session: Session, made: Any) -> int:
        session.rows("update test_data set value = 1")
        return int(enqueue_duplicate(session, made))

    def claim(session: Session, _made: Any) -> list[Attempt]:
        attempts = session.claim()
        session.commit()
        return attempts

    def run_task(session: Session, _made: Any) -> int:
        seen = int(session.value("select value from test_data"))
        session.commit()
        return seen

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        attempts, seen, found = run.answers["b"][0], run.answers["b"][1], run.answers["a"][0]
        held = run.after(("b", 0), ("a", 0))
        if held and not run.after(("b", 0), ("a", 1)):
            assert attempts == []
        if end is commit and (held or enqueue_duplicate is by_key):
            seen_by_a_run = seen == 1 and attempts != []
            assert seen_by_a_run or look.claim(10)
        if held:
            assert found == run.made

    interleaver.every_order(prepare, check, a=[write_and_enqueue, end], b=[claim, run_task])


def test_replace_of_a_task_that_is_claimed(interleaver: Interleaver) -> None:
    """Either the claim takes the task with the new arguments, or a task with them is left: never neither."""

    def prepare(session: Session) -> int:
        return session.enqueue_unique("k", 1)

    def replace(session: Session, _made: Any) -> int:
        return session.enqueue_unique("k", 2, on_duplicate="replace")

    def claim(session: Session, _made: Any) -> list[Attempt]:
        return session.claim()

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert look.rows(
            "select spec_json #>> '{args,0}' from task_runs where result_id = %s", run.answers["a"][0]
        ) == [("2",)]
        assert active(look) == (1 if run.answers["a"][0] == run.made else 2)

    interleaver.every_order(prepare, check, a=[replace, commit], b=[claim, commit])


def test_batches_of_keys_in_opposite_orders(interleaver: Interleaver) -> None:
    """Two batches of the same keys, one backwards, and a third: no deadlock, each key once."""

    def forwards(session: Session, _made: Any) -> list[int]:
        return session.enqueue_many_unique("abcde")

    def backwards(session: Session, _made: Any) -> list[int]:
        return session.enqueue_many_unique("edcba")

    def overlapping(session: Session, _made: Any) -> list[int]:
        return session.enqueue_many_unique("dxa")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        a, b, c = (run.answers[name][0] for name in "abc")
        assert a == b[::-1]
        assert [c[0], c[2]] == [a[3], a[0]]
        assert active(look) == 6

    interleaver.every_order(
        lambda _: None, check, a=[forwards, commit], b=[backwards, commit], c=[at_once(overlapping)]
    )


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("enqueue_duplicate", [by_spec, by_key])
def test_producer_whose_snapshot_shows_a_task_that_has_ended(
    interleaver: Interleaver, enqueue_duplicate: Step, level: str
) -> None:
    """Its snapshot shows the duplicate READY, but it has run since: a task of its own, or 40001; never that one."""

    def prepare(session: Session) -> int:
        return int(enqueue_duplicate(session, None))

    def snapshot(session: Session, _made: Any) -> None:
        session.rows("set transaction isolation level " + level)
        session.rows("select count(*) from task_runs")

    def run_it(session: Session, _made: Any) -> list[str]:
        return session.complete(*session.claim())

    def check(run: Run, look: Session) -> None:
        assert {error.sqlstate for error in run.errors()} <= {"40001"}
        found = run.answers["b"][1]
        if isinstance(found, int) and run.after(("b", 1), ("a", 0)):
            assert look.status(found) == "READY"

    interleaver.every_order(prepare, check, a=[at_once(run_it)], b=[snapshot, enqueue_duplicate, commit])


@pytest.mark.parametrize("end", [commit, rollback])
def test_prune_of_a_task_with_a_key_and_its_producer(interleaver: Interleaver, end: Step) -> None:
    """Neither waits for the other; the key of a new task stays."""

    def prepare(session: Session) -> None:
        session.enqueue_unique("k")
        session.complete(*session.claim())

    def prune(session: Session, _made: Any) -> int:
        return int(session.value("select reproq_prune_finished('0')"))

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert "b" not in run.waited
        if end is commit:
            assert look.enqueue_unique("k") == run.answers["a"][0]
        assert active(look) == (1 if end is commit else 0)

    interleaver.every_order(prepare, check, a=[by_key, end], b=[prune, commit])
