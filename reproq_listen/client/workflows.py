"""Tasks that depend on each other: chains, groups and chords, enqueued together, all or none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar
from uuid import UUID

from reproq_listen.client.task import TaskCall
from reproq_listen.errors import InvalidTaskError

R_co = TypeVar("R_co", covariant=True)
M = TypeVar("M")
T = TypeVar("T")


class Chain:
    """Tasks that run one after another."""

    def __init__(self, calls: tuple[TaskCall[Any], ...]) -> None:
        self.calls = calls


class Group:
    """Tasks that run side by side."""

    def __init__(self, calls: tuple[TaskCall[Any], ...]) -> None:
        self.calls = calls


class Chord(Generic[R_co]):
    """Tasks that run side by side, and one that runs when all have succeeded."""

    def __init__(self, calls: tuple[TaskCall[Any], ...], callback: TaskCall[R_co]) -> None:
        self.calls = calls
        self.callback = callback


def chain(*calls: TaskCall[Any]) -> Chain:
    """Run these one after another: each starts when the one before it has succeeded."""
    if not calls:
        raise InvalidTaskError("chain needs at least one task.call(...)")
    return Chain(_checked("chain", calls))


def group(*calls: TaskCall[Any]) -> Group:
    """Run these side by side, under one `workflow_id`."""
    if not calls:
        raise InvalidTaskError("group needs at least one task.call(...)")
    return Group(_checked("group", calls))


def chord(calls: Iterable[TaskCall[Any]], callback: TaskCall[R_co]) -> Chord[R_co]:
    """Run `calls` side by side, then `callback`, once all have succeeded."""
    calls = tuple(calls)
    _checked("chord", (*calls, callback))
    return Chord(calls, callback)


def _checked(what: str, calls: tuple[TaskCall[Any], ...]) -> tuple[TaskCall[Any], ...]:
    for call in calls:
        if not isinstance(call, TaskCall):
            raise InvalidTaskError(f"{what} needs task.call(...), not {call!r:.80}")
        if call.options.keys() & {"unique_key", "dedupe"}:
            raise InvalidTaskError(
                f"{call.task.module_path}: a task of a {what} is always a new one: leave unique_key and dedupe out"
            )
    return calls


class Workflow(Generic[M, T]):
    """A workflow that was enqueued."""

    def __init__(self, workflow_id: UUID, members: list[M], result: T) -> None:
        self.workflow_id = workflow_id
        self.members = members
        """The results of all tasks in order; of a chord without its callback."""
        self.result = result
        """The result of the last step of a chain, or of the callback of a chord; None for a group."""
