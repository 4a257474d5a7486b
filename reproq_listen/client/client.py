"""`Client`: enqueues tasks over whatever connection a program has."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from reproq_listen.client import requests
from reproq_listen.client.connections import runner
from reproq_listen.client.results import TaskResult
from reproq_listen.client.task import Task, TaskCall
from reproq_listen.client.workflows import Chain, Chord, Group, Workflow

P = ParamSpec("P")
R = TypeVar("R")


class Client:
    """Enqueues tasks, in the transaction of the program where there is one.

    `target` is a DSN, a psycopg connection or pool, an SQLAlchemy Connection, Session or Engine, or a Django alias.
    On a connection or session nothing is committed here. With a DSN, a pool or an engine each call is committed at
    its end. Errors of the database are those of its driver.
    """

    def __init__(self, target: Any, *, schema: str | None = None) -> None:  # noqa: ANN401 - see above
        """`schema`: where reproq is installed, if not on the search path. Raises SettingError."""
        self._runner = runner(target)
        self._schema = schema

    @overload
    def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskResult[R]: ...
    @overload
    def enqueue(self, call: TaskCall[R], /) -> TaskResult[R]: ...
    @overload
    def enqueue(self, work: Chord[R], /) -> Workflow[TaskResult[Any], TaskResult[R]]: ...
    @overload
    def enqueue(self, work: Chain, /) -> Workflow[TaskResult[Any], TaskResult[Any]]: ...
    @overload
    def enqueue(self, work: Group, /) -> Workflow[TaskResult[Any], None]: ...
    def enqueue(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Enqueue `task` with these arguments, a `task.call(...)`, or a chain, group or chord. One statement.

        Raises InvalidArgumentsError before any SQL if the arguments do not fit the function, or cannot be encoded.
        """
        if isinstance(task, Chain | Group | Chord):
            return self._enqueue_workflow(task)
        call = requests.as_call(task, args, kwargs)
        ((result_id,),) = self._runner.rows(*requests.enqueue(call, self._schema, self._runner.style))
        return self._result(result_id, call)

    def enqueue_many(self, calls: Iterable[TaskCall[R]], /) -> list[TaskResult[R]]:
        """Enqueue all of these, or none, in one statement. Their results come in the same order."""
        calls = list(calls)
        if not calls:
            return []
        rows = self._runner.rows(*requests.enqueue_many(calls, self._schema, self._runner.style))
        return [self._result(row[0], call) for row, call in zip(rows, calls, strict=True)]

    @overload
    def get_result(self, result_id: int) -> TaskResult[Any]: ...
    @overload
    def get_result(self, result_id: int, task: Task[..., R]) -> TaskResult[R]: ...
    def get_result(self, result_id: int, task: Task[..., Any] | None = None) -> TaskResult[Any]:
        """Read what became of a task. With `task` its return value has the type that the function gives.

        Raises NoSuchTaskError.
        """
        result: TaskResult[Any] = TaskResult(self._runner, self._schema, result_id, task)
        result.refresh()
        return result

    def close(self) -> None:
        """Close the connection that the client has opened for a DSN. Others stay open."""
        self._runner.close()

    def _enqueue_workflow(self, work: Chain | Group | Chord[Any]) -> Workflow[TaskResult[Any], Any]:
        rows = self._runner.rows(*requests.workflow(work, self._schema, self._runner.style))
        workflow_id, tasks = requests.in_order(work, rows)
        results = [self._result(result_id, call) for result_id, call in tasks]
        members = results[:-1] if isinstance(work, Chord) else results
        return Workflow(workflow_id, members, None if isinstance(work, Group) else results[-1])

    def _result(self, result_id: int, call: TaskCall[R]) -> TaskResult[R]:
        return TaskResult(self._runner, self._schema, result_id, call.task, call.args, call.kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
