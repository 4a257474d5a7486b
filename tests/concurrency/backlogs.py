"""A key that is held and the tasks blocked behind it: what the blocking tests begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.concurrency.interleave import Run
from tests.concurrency.sessions import Attempt, Session

KEYS = [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 1}]
BOTH_KEYS = pytest.mark.parametrize("key", KEYS, ids=["lock key", "concurrency key"])


@dataclass
class Backlog:
    """A running task of a key, and the blocked ones behind it in their order."""

    holder: Attempt
    blocked: list[int]


def backlog(session: Session, key: dict[str, Any], *waiting: dict[str, Any]) -> Backlog:
    """One task of the key runs; tasks with these further columns are blocked behind it."""
    first = session.add(**key)
    [holder] = session.claim()
    assert holder.result_id == first
    ids = [session.add(**{**key, **columns}) for columns in waiting]
    queues = ["default", "other"]
    assert session.claim(20, queues) == []
    assert all(session.blocked(task) for task in ids)
    return Backlog(holder, ids)


def distract(session: Session) -> None:
    """Add a task that fills a claim, and blocked ones of many busy keys: a full claim will not find a forgotten one."""
    for number in range(20):
        session.add(priority=-2, lock_key=f"busy {number}")
        session.add(status="RUNNING", lock_key=f"busy {number}")
    session.rows("update task_runs set blocked_on = 'l:' || lock_key where priority = -2")
    session.add()


def complete(session: Session, made: Backlog) -> list[str]:
    return session.complete(made.holder)


def claim(session: Session, _made: Any) -> list[Attempt]:
    return session.claim()


def ids(attempts: list[Attempt]) -> list[int]:
    return [attempt.result_id for attempt in attempts]


def second_is_next(run: Run, look: Session) -> None:
    """The first blocked task is out of the way: a claim gets the second."""
    assert run.errors() == []
    assert ids(look.claim()) == [run.made.blocked[1]]


def second_is_back(run: Run, look: Session) -> None:
    """The same, and the second came back by itself, with a notification: no claim had to look for it."""
    assert run.errors() == []
    assert look.blocked(run.made.blocked[1]) == ""
    assert ids(look.claim()) == [run.made.blocked[1]]
