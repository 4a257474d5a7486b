"""Blocked tasks are never forgotten, in whatever way their key becomes free: the next claim by any worker gets one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.backlogs import BOTH_KEYS, Backlog, backlog, claim, complete, distract, ids
from tests.concurrency.interleave import Interleaver, Run, at_once, commit
from tests.concurrency.sessions import TASK_PATH, Attempt, Session


@BOTH_KEYS
@pytest.mark.parametrize("rest", [7, 12])
def test_born_blocked_while_holder_and_backlog_finish(interleaver: Interleaver, key: dict[str, Any], rest: int) -> None:
    """Tasks of a backlog are blocked by their insert; one that ends meanwhile does not see them, but a claim does."""

    def prepare(session: Session) -> None:
        for _ in range(9 if "lock_key" in key else 10):
            session.add(**key)
        assert session.value("select count(*) from task_runs where blocked_on <> ''") == 1  # the last one

    def insert(session: Session, _made: Any) -> list[int]:
        return [session.add(**key) for _ in range(rest)]

    def finish_all(session: Session, _made: Any) -> int:
        done = 0
        while attempts := session.claim(5):
            done += len(attempts)
            session.complete(*attempts)
            session.commit()
        return done

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        inserted = run.answers["a"][0]
        if run.after(("b", 0), ("a", 0)) and run.after(("a", 1), ("b", 0)):
            assert look.blocked(inserted[0])  # the race that is meant took place
        assert len(look.claim(10)) == (0 if finished(look, inserted) else 1)

    def finished(look: Session, tasks: list[int]) -> bool:
        return bool(
            look.value("select bool_and(finished_at is not null) from task_runs where result_id = any (%s)", tasks)
        )

    interleaver.every_order(prepare, check, a=[insert, commit], b=[finish_all, commit])


@BOTH_KEYS
@pytest.mark.parametrize(
    "change",
    [
        "status = 'SUCCESSFUL'",
        "status = 'FAILED'",
        "status = 'READY', queue_name = 'elsewhere'",
        "lock_key = null, concurrency_key = null",
        "lock_key = 'z', concurrency_key = 'z'",
    ],
)
def test_holder_is_changed_by_hand(interleaver: Interleaver, key: dict[str, Any], change: str) -> None:
    """A DBA ends the holder, moves it away or takes its key: the next claim finds out, a block in flight included."""

    def prepare(session: Session) -> Backlog:
        made = backlog(session, key, {})
        return Backlog(made.holder, [*made.blocked, session.add(**key)])  # the second would block in the race

    def by_hand(session: Session, made: Backlog) -> None:
        statements = {
            "status = 'SUCCESSFUL'": "update task_runs set status = 'SUCCESSFUL' where result_id = %s",
            "status = 'FAILED'": "update task_runs set status = 'FAILED' where result_id = %s",
            "status = 'READY', queue_name = 'elsewhere'": (
                "update task_runs set status = 'READY', queue_name = 'elsewhere' where result_id = %s"
            ),
            "lock_key = null, concurrency_key = null": (
                "update task_runs set lock_key = null, concurrency_key = null where result_id = %s"
            ),
            "lock_key = 'z', concurrency_key = 'z'": (
                "update task_runs set lock_key = 'z', concurrency_key = 'z' where result_id = %s"
            ),
        }
        session.rows(statements[change], made.holder.result_id)

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(ids([*run.answers["b"][0], *look.claim()])) == 1
        look.rows("update task_runs set queue_name = 'default' where queue_name = 'elsewhere'")

    interleaver.every_order(prepare, check, a=[by_hand, commit], b=[claim, commit])


@BOTH_KEYS
def test_task_that_is_not_paid_for_gives_up_its_key(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """Two claims race for one token. The loser had given its task the key and blocked others: they are unblocked."""

    def prepare(session: Session) -> list[int]:
        session.limit_set("task:app.tasks.slow", 0.001, 1)
        session.add(task_path="app.tasks.slow", queue_name="other")
        loser = session.add(task_path="app.tasks.slow", priority=8, **key)
        second = session.add(priority=5, **key)
        distract(session)
        return [loser, second]

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        if len(run.answers["b"][0]) == 1:
            assert look.blocked(run.made[1]) == ""
            assert run.made[1] in ids(look.claim(2))

    def claim_other(session: Session, _made: Any) -> list[Attempt]:
        return session.claim(1, ["other"])

    def claim_two(session: Session, _made: Any) -> list[Attempt]:
        return session.claim(2)

    runs = interleaver.every_order(prepare, check, a=[claim_other, commit], b=[claim_two, commit])
    assert any(len(run.answers["b"][0]) == 1 for run in runs)  # the race that is meant took place


def test_task_with_the_smallest_limit_goes_away(interleaver: Interleaver) -> None:
    """With the task that kept a key to 1 gone, the others have the places of their own limits."""

    def prepare(session: Session) -> Backlog:
        key = {"concurrency_key": "k", "concurrency_limit": 4}
        return backlog(session, key, {"concurrency_limit": 1}, {}, {}, {}, {}, {})

    def cancel(session: Session, made: Backlog) -> str:
        return session.cancel(made.blocked[0])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert ids(look.claim(10)) == run.made.blocked[1:5]

    interleaver.every_order(prepare, check, a=[complete, commit], b=[cancel, commit])


def test_several_places_are_freed_at_once(interleaver: Interleaver) -> None:
    """Holders of several places end in several sessions: all places are used by the next claim."""

    def prepare(session: Session) -> list[Attempt]:
        for _ in range(9):
            session.add(concurrency_key="k", concurrency_limit=3)
        holders = session.claim(3)
        assert session.claim(10) == []
        return holders

    def complete_first(session: Session, made: list[Attempt]) -> list[str]:
        return session.complete(made[0])

    def complete_others(session: Session, made: list[Attempt]) -> list[str]:
        return session.complete(*made[1:])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        taken = [attempt for attempt in run.answers["c"][0] if attempt not in run.made]
        assert len(taken) + len(look.claim(10)) == 3

    def claim_ten(session: Session, _made: Any) -> list[Attempt]:
        return session.claim(10)

    interleaver.every_order(
        prepare, check, a=[complete_first, commit], b=[complete_others, commit], c=[at_once(claim_ten)]
    )


def test_full_claims_find_a_forgotten_task(interleaver: Interleaver) -> None:
    """A task that is blocked on a free key, for whatever reason, is found although no claim ever runs dry."""
    interleaver.clear()
    look = interleaver.look
    forgotten = look.add(lock_key="k", priority=1)
    look.rows("update task_runs set blocked_on = 'l:k' where result_id = %s", forgotten)
    for _ in range(210):
        look.add()
    look.commit()
    assert look.blocked(forgotten) == "l:k"
    taken: list[int] = []
    while forgotten not in taken:
        assert len(taken) < 200, "not found by 200 full claims"
        taken += ids(look.claim())
        look.commit()


def test_more_streams_than_one_look_unblocks(interleaver: Interleaver) -> None:
    """Hundreds of streams that cannot move stand before the one that can: its task comes back all the same."""
    interleaver.clear()
    look = interleaver.look
    look.pause("a stopped queue")
    look.rows(
        "insert into task_runs (queue_name, priority, spec_json, spec_hash, lock_key)"
        " select 'a stopped queue', n %% 250, jsonb_build_object('v', 1, 'task_path', %s::text), 'h' || n, 'k'"
        " from generate_series(1, 500) n",
        TASK_PATH,
    )
    last = look.add(lock_key="k")
    look.rows("update task_runs set blocked_on = 'l:k'")
    look.commit()
    taken = []
    for _ in range(4):
        taken += ids(look.claim())
        look.reclaim()
        look.commit()
    assert taken == [last]
