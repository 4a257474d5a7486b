"""The task that was to have a key is out of the way: the next claim by any worker gets the one behind it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.concurrency.backlogs import (
    BOTH_KEYS,
    Backlog,
    backlog,
    claim,
    complete,
    distract,
    ids,
    second_is_back,
    second_is_next,
)
from tests.concurrency.interleave import Interleaver, Run, commit
from tests.concurrency.sessions import Session


@BOTH_KEYS
def test_next_one_stands_in_a_paused_queue(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """The pause of the queue in which the next task stands does not keep the key from the other queue."""

    def pause(session: Session, _made: Backlog) -> None:
        session.pause("other")

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert {look.blocked(task) for task in run.made.blocked} == {""}
        [second] = look.claim(10, ["other", "default"])
        assert second.result_id == run.made.blocked[1]
        look.complete(second)
        look.resume("other")
        assert ids(look.claim(10, ["other", "default"])) == [run.made.blocked[0]]

    interleaver.every_order(
        lambda session: backlog(session, key, {"queue_name": "other"}, {}),
        check,
        a=[complete, commit],
        b=[pause, commit],
    )


@BOTH_KEYS
def test_next_one_is_cancelled(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """Cancelled before its claim, before or after it came back: the one behind it has the key."""

    def cancel(session: Session, made: Backlog) -> str:
        return session.cancel(made.blocked[0])

    interleaver.every_order(
        lambda session: backlog(session, key, {}, {}), second_is_back, a=[complete, commit], b=[cancel, commit]
    )


@BOTH_KEYS
def test_cancel_of_the_next_one_is_requested_by_hand(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """An application sets cancel_requested on a waiting task: the claim that ends it takes the one behind it."""

    def request(session: Session, made: Backlog) -> None:
        session.rows("update task_runs set cancel_requested = true where result_id = %s", made.blocked[0])

    interleaver.every_order(
        lambda session: backlog(session, key, {}, {}), second_is_next, a=[complete, commit], b=[request, commit]
    )


@BOTH_KEYS
@pytest.mark.parametrize("gates", [None, {"a": "UNBLOCKED"}], ids=["", "inside the end"])
def test_next_one_is_deleted(interleaver: Interleaver, key: dict[str, Any], gates: dict[str, str] | None) -> None:
    """Deleted before its claim, by a direct DELETE."""

    def delete(session: Session, made: Backlog) -> None:
        session.rows("delete from task_runs where result_id = %s", made.blocked[0])

    interleaver.every_order(
        lambda session: backlog(session, key, {}, {}),
        second_is_back,
        gates=gates,
        a=[complete, commit],
        b=[delete, commit],
    )


@BOTH_KEYS
def test_next_one_expires(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """Expired when its turn comes: the claim that ends it takes the one behind it."""

    def expire(session: Session, made: Backlog) -> None:
        session.rows("update task_runs set expires_at = now() where result_id = %s", made.blocked[0])

    interleaver.every_order(
        lambda session: backlog(session, key, {}, {}), second_is_next, a=[complete, commit], b=[expire, commit]
    )


def test_next_one_is_blocked_on_its_second_key(interleaver: Interleaver) -> None:
    """A task that gets its lock key but not its concurrency key leaves the lock key to the one behind it."""

    def prepare(session: Session) -> Backlog:
        session.add(concurrency_key="c", concurrency_limit=1)
        session.claim()
        return backlog(session, {"lock_key": "k"}, {"concurrency_key": "c", "concurrency_limit": 1}, {})

    interleaver.every_order(prepare, second_is_next, a=[complete, commit])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert ids([*run.answers["b"][0], *look.claim()]) == [run.made.blocked[1]]

    for point in ("BLOCKED", "UNBLOCKED"):
        interleaver.every_order(prepare, check, gates={"b": point}, a=[complete, commit], b=[claim, commit])


def test_key_that_is_given_up_is_passed_on(interleaver: Interleaver) -> None:
    """The same where another task could fill the claim, and nothing be looked for: the one behind has the key."""

    def prepare(session: Session) -> Backlog:
        session.add(concurrency_key="c", concurrency_limit=1)
        session.claim()
        made = backlog(session, {"lock_key": "k"}, {"concurrency_key": "c", "concurrency_limit": 1}, {})
        distract(session)
        return made

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert ids(run.answers["a"][2]) == [run.made.blocked[1]]
        assert look.blocked(run.made.blocked[0]) == "c:c"

    interleaver.every_order(prepare, check, a=[complete, commit, claim, commit])


def test_concurrency_key_is_left_when_the_lock_key_is_busy(interleaver: Interleaver) -> None:
    """The other way round: a task that comes back for its concurrency key and blocks on its lock key."""

    def prepare(session: Session) -> Backlog:
        waiting = [{"lock_key": "l"}, {}]
        made = backlog(session, {"concurrency_key": "k", "concurrency_limit": 1}, *waiting)
        session.add(lock_key="l")
        assert len(session.claim()) == 1
        return made

    interleaver.every_order(prepare, second_is_next, a=[complete, commit])


@BOTH_KEYS
@pytest.mark.parametrize("column", ["queue_name = 'elsewhere'", "priority = -5", "run_after = now() + interval '1 h'"])
def test_next_one_is_moved_by_hand(interleaver: Interleaver, key: dict[str, Any], column: str) -> None:
    """A DBA moves the task that was to come next to another queue, priority or time: the one behind it has the key."""
    statements = {
        "queue_name = 'elsewhere'": "update task_runs set queue_name = 'elsewhere' where result_id = %s",
        "priority = -5": "update task_runs set priority = -5 where result_id = %s",
        "run_after = now() + interval '1 h'": (
            "update task_runs set run_after = now() + interval '1 h' where result_id = %s"
        ),
    }

    def by_hand(session: Session, made: Backlog) -> None:
        session.rows(statements[column], made.blocked[0])

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        [taken] = ids(look.claim())
        assert taken == run.made.blocked[1] or column.startswith("priority")  # it may have come back before it moved
        look.rows("update task_runs set queue_name = 'default' where queue_name = 'elsewhere'")

    interleaver.every_order(
        lambda session: backlog(session, key, {}, {}), check, a=[complete, commit], b=[by_hand, commit]
    )


@BOTH_KEYS
def test_next_one_is_throttled(interleaver: Interleaver, key: dict[str, Any]) -> None:
    """The next task's bucket is empty, or becomes so in the race: the key goes to a task of another stream."""

    def prepare(session: Session) -> Backlog:
        made = backlog(session, key, {"task_path": "app.tasks.slow"}, {})
        session.limit_set("task:app.tasks.slow", 0.001, 1)
        session.add(task_path="app.tasks.slow", priority=9)
        return made

    def use_the_token(session: Session, _made: Backlog) -> Any:
        return session.claim()

    def check(run: Run, look: Session) -> None:
        assert run.errors() == []
        assert len(run.answers["b"][0]) == 1
        taken = ids([*run.answers["b"][0], *look.claim(10)])
        assert len({*taken} & {*run.made.blocked}) == 1

    interleaver.every_order(prepare, check, a=[complete, commit], b=[use_the_token, commit])
