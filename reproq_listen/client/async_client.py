"""`AsyncClient`: as `Client`, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar, overload

from reproq_listen.client import requests
from reproq_listen.client.async_connections import AsyncRunner, async_runner
from reproq_listen.client.results import BUSY_LOOK, FIRST_LOOK, MAX_LOOK, Snapshot
from reproq_listen.client.task import Task, TaskCall
from reproq_listen.client.workflows import Chain, Chord, Group, Workflow
from reproq_listen.db import producer_queries as queries

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class AsyncTaskResult(Snapshot[R_co]):
    """A task that was enqueued: as `TaskResult`."""

    def __init__(
        self,
        runner: AsyncRunner,
        schema: str | None,
        result_id: int,
        task: Task[..., R_co] | None = None,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(result_id, task, args, kwargs)
        self._runner = runner
        self._schema = schema

    async def refresh(self) -> None:
        """Read the task again. Raises NoSuchTaskError."""
        self.read(await self._runner.rows(queries.result(self._schema, self._runner.style), (self.id, False)))

    async def wait(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109 - as TaskResult.wait
        """Wait for the end of the task and give what it returned: see `TaskResult.wait`."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        look = FIRST_LOOK
        async with self._runner.listening(self._schema) as listener:
            while True:
                query = queries.result(self._schema, listener.style)
                watched = self.read(await listener.rows(query, (self.id, True)))
                if self.is_finished:
                    return self.return_value
                left = MAX_LOOK if deadline is None else deadline - loop.time()
                if left <= 0:
                    raise self.unfinished(timeout)
                await listener.sleep_until(str(self.id), min(left, look if watched else BUSY_LOOK))
                look = min(look * 2, MAX_LOOK)

    async def cancel(self) -> str:
        """Cancel the task: see `TaskResult.cancel`."""
        return await self._change("cancel")

    async def retry(self) -> str:
        """Run a failed task again: see `TaskResult.retry`."""
        return await self._change("retry")

    async def _change(self, verb: Literal["cancel", "retry"]) -> str:
        ((answer,),) = await self._runner.rows(queries.change(self._schema, self._runner.style, verb), (self.id,))
        return str(answer)


class AsyncClient:
    """Enqueues tasks, in the transaction of the program where there is one: as `Client`.

    `target` is a DSN, a psycopg AsyncConnection or AsyncConnectionPool, or an SQLAlchemy AsyncConnection, AsyncSession
    or AsyncEngine, with psycopg or asyncpg.
    """

    def __init__(self, target: Any, *, schema: str | None = None) -> None:  # noqa: ANN401 - see above
        """`schema`: where reproq is installed, if not on the search path. Raises SettingError."""
        self._runner = async_runner(target)
        self._schema = schema

    @overload
    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncTaskResult[R]: ...
    @overload
    async def enqueue(self, call: TaskCall[R], /) -> AsyncTaskResult[R]: ...
    @overload
    async def enqueue(self, work: Chord[R], /) -> Workflow[AsyncTaskResult[Any], AsyncTaskResult[R]]: ...
    @overload
    async def enqueue(self, work: Chain, /) -> Workflow[AsyncTaskResult[Any], AsyncTaskResult[Any]]: ...
    @overload
    async def enqueue(self, work: Group, /) -> Workflow[AsyncTaskResult[Any], None]: ...
    async def enqueue(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Enqueue `task` with these arguments, a `task.call(...)`, or a chain, group or chord. One statement.

        Raises InvalidArgumentsError before any SQL if the arguments do not fit the function, or cannot be encoded.
        """
        if isinstance(task, Chain | Group | Chord):
            return await self._enqueue_workflow(task)
        call = requests.as_call(task, args, kwargs)
        ((result_id,),) = await self._runner.rows(*requests.enqueue(call, self._schema, self._runner.style))
        return self._result(result_id, call)

    async def enqueue_many(self, calls: Iterable[TaskCall[R]], /) -> list[AsyncTaskResult[R]]:
        """Enqueue all of these, or none, in one statement. Their results come in the same order."""
        calls = list(calls)
        if not calls:
            return []
        rows = await self._runner.rows(*requests.enqueue_many(calls, self._schema, self._runner.style))
        return [self._result(row[0], call) for row, call in zip(rows, calls, strict=True)]

    @overload
    async def get_result(self, result_id: int) -> AsyncTaskResult[Any]: ...
    @overload
    async def get_result(self, result_id: int, task: Task[..., R]) -> AsyncTaskResult[R]: ...
    async def get_result(self, result_id: int, task: Task[..., Any] | None = None) -> AsyncTaskResult[Any]:
        """Read what became of a task: see `Client.get_result`."""
        result: AsyncTaskResult[Any] = AsyncTaskResult(self._runner, self._schema, result_id, task)
        await result.refresh()
        return result

    async def close(self) -> None:
        """Close the connection that the client has opened for a DSN. Others stay open."""
        await self._runner.close()

    async def _enqueue_workflow(self, work: Chain | Group | Chord[Any]) -> Workflow[AsyncTaskResult[Any], Any]:
        rows = await self._runner.rows(*requests.workflow(work, self._schema, self._runner.style))
        workflow_id, tasks = requests.in_order(work, rows)
        results = [self._result(result_id, call) for result_id, call in tasks]
        members = results[:-1] if isinstance(work, Chord) else results
        return Workflow(workflow_id, members, None if isinstance(work, Group) else results[-1])

    def _result(self, result_id: int, call: TaskCall[R]) -> AsyncTaskResult[R]:
        return AsyncTaskResult(self._runner, self._schema, result_id, call.task, call.args, call.kwargs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
