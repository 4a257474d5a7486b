"""Which tasks wait: what a test asserts after it has called code that enqueues."""

from __future__ import annotations

from typing import Any, ParamSpec, TypeVar

import psycopg

from reproq_listen.client.client import Client
from reproq_listen.client.results import TaskResult
from reproq_listen.client.task import Task, TaskCall
from reproq_listen.db import testing_queries as queries
from reproq_listen.errors import InvalidArgumentsError

P = ParamSpec("P")
R = TypeVar("R")
MAX_SHOWN = 20


class EnqueuedTasks:
    """The tasks of one test database that have not ended. `assert_enqueued(send_welcome, user_id=3)` calls it."""

    def __init__(self, dsn: str, client: Client) -> None:
        self._dsn = dsn
        self._client = client

    def __call__(self, task: Task[P, R], /, *args: Any, **kwargs: Any) -> TaskResult[R]:  # noqa: ANN401 - may be fewer
        """Assert that this task waits or runs, and give the newest. Without arguments: with any.

        Only what is committed counts. Options of `task.using(...)` must be those of the row: queue, priority.
        Raises AssertionError, which lists what waits instead.
        """
        __tracebackhide__ = True
        found = self._find(task, args, kwargs)
        assert found, f"{self._wanted(task, args, kwargs)} is not enqueued. {self._waiting()}"
        return self._client.get_result(found[-1], task)

    def none(self, task: Task[..., Any], /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as above
        """Assert that no such task waits or runs."""
        __tracebackhide__ = True
        found = self._find(task, args, kwargs)
        assert not found, f"{self._wanted(task, args, kwargs)} is enqueued: result_id {found[-1]}"

    def _find(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[int]:
        """Give the ids of the tasks that fit, oldest first."""
        wanted = None
        if args or kwargs:
            call = TaskCall(task, args, kwargs)
            wanted = self._bound(task, call.encoded_args, call.encoded_kwargs)
        found = []
        for result_id, stored_args, stored_kwargs, queue_name, priority in self._rows(queries.OF_PATH, task):
            if (queue_name, priority) != (task.queue_name, task.priority):
                continue
            if wanted is None or wanted == self._bound(task, stored_args, stored_kwargs):
                found.append(result_id)
        return found

    @staticmethod
    def _bound(task: Task[..., Any], args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Give encoded arguments by name, with defaults; None if they do not fit: SQL checks no signature."""
        try:
            bound = task.codec.bind(tuple(args), kwargs)
        except InvalidArgumentsError:
            return None
        bound.apply_defaults()
        return bound.arguments

    def _rows(self, query: queries.Text, task: Task[..., Any] | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._dsn) as connection:
            return connection.execute(query, [] if task is None else [task.module_path]).fetchall()

    def _wanted(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{task.module_path}({', '.join(shown)}) of queue {task.queue_name}, priority {task.priority}"

    def _waiting(self) -> str:
        rows = self._rows(queries.UNFINISHED)
        if not rows:
            return "No task waits. Is the transaction that enqueued it committed?"
        lines = [
            f"\n  {path} args={args} kwargs={kwargs} queue={queue} {status}"
            for path, args, kwargs, queue, status in rows
        ]
        return "What waits:" + "".join(lines[:MAX_SHOWN]) + ("\n  ..." if len(lines) > MAX_SHOWN else "")
