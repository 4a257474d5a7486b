# ruff: noqa: ANN401 - connections of any library, values of any function
"""The end of a task inside its own database transaction. Imported by its first use. Standard library only.

Connections are known by their methods: psycopg's, SQLAlchemy's `Connection` and `Session`, Django's. So no driver is
imported here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self

from reproq_listen.child.requests import LeaseLostError, RequestError
from reproq_listen.child.results import dumps

_BUSY_PAUSE = 0.02
_BUSY_LIMIT = 10.0

Execute = Callable[[str, Sequence[object]], Any]
"""Runs a statement and gives the one value of its one row; of an AsyncConnection awaitable."""


class Completion:
    """A transaction of the task's own; see TaskContext.transaction."""

    def __init__(
        self,
        connection: Any,
        call: Callable[[str, Sequence[object]], tuple[str, Sequence[object]]],
        tasks: Callable[[], str],
        write_result: Callable[[Any], object],
    ) -> None:
        """`call` makes the statement for a function of ours; `tasks` gives those that follow, as JSON text;
        `write_result` makes JSON of a result."""
        self.result: object = None
        """To be set inside the block: the result of the task."""
        self.is_done = False
        """The transaction is committed, or was sent to be."""
        self._connection = connection
        self._call = call
        self._tasks = tasks
        self._write_result = write_result
        self._block: AbstractContextManager[Execute] | None = None
        self._async_block: AbstractAsyncContextManager[Execute] | None = None
        self._execute: Execute | None = None

    def __enter__(self) -> Self:
        self._block = begin(self._connection, is_outermost=True)
        self._execute = self._block.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._block is not None
        assert self._execute is not None
        if error is None:
            try:
                deadline = time.monotonic() + _BUSY_LIMIT
                while (answer := self._execute(*self._statement())) == "busy" and time.monotonic() < deadline:
                    time.sleep(_BUSY_PAUSE)
                _check(answer)
            except BaseException as refusal:
                self._block.__exit__(type(refusal), refusal, refusal.__traceback__)
                raise
            self.is_done = True
        return self._block.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        self._async_block = begin_async(self._connection)
        self._execute = await self._async_block.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._async_block is not None
        assert self._execute is not None
        if error is None:
            try:
                deadline = time.monotonic() + _BUSY_LIMIT
                while True:
                    answer = await self._execute(*self._statement())
                    if answer != "busy" or time.monotonic() > deadline:
                        break
                    await asyncio.sleep(_BUSY_PAUSE)
                _check(answer)
            except BaseException as refusal:
                await self._async_block.__aexit__(type(refusal), refusal, refusal.__traceback__)
                raise
            self.is_done = True
        return await self._async_block.__aexit__(kind, error, trace)

    def _statement(self) -> tuple[str, Sequence[object]]:
        result = dumps(self._write_result(self.result), "the result of the task", 1 << 20)
        return self._call("reproq_complete_one({fence}, %s::jsonb, %s::jsonb)", (result, self._tasks() or None))


def statement(call: str, schema: str | None) -> str:
    """The statement that calls a function of ours. `{fence}` in `call` stands for its first two arguments."""
    prefix = "" if schema is None else '"' + schema.replace('"', '""').replace("%", "%%") + '".'
    return f"select {prefix}{call.format(fence='%s::bigint, %s::uuid')}"


def _check(answer: object) -> None:
    """Raises LeaseLostError or RequestError unless the end of the attempt is part of the transaction."""
    if answer in ("lost", "already"):
        raise LeaseLostError("the lease of this attempt is lost: its transaction is rolled back")
    if answer != "ok":
        raise RequestError("the row of the task is held by another session; the transaction is rolled back")


@contextmanager
def begin(connection: Any, *, is_outermost: bool) -> Iterator[Execute]:
    """A transaction on this connection, committed at the end of the block; maybe a savepoint without `is_outermost`.

    Raises ValueError if `is_outermost` and a transaction has begun, TypeError for an unknown connection.
    """
    if isinstance(connection, str):  # an alias of Django
        from importlib import import_module

        connection = import_module("django.db").connections[connection]
    if hasattr(connection, "pgconn"):  # psycopg
        if hasattr(connection, "__aenter__"):
            raise TypeError("use async with for an AsyncConnection")
        if is_outermost and connection.info.transaction_status != 0:
            _refuse_transaction()
        with connection.transaction():
            yield lambda query, values: _value(connection.execute(query, values))
    elif hasattr(connection, "in_atomic_block"):  # Django
        from importlib import import_module

        if is_outermost and connection.in_atomic_block:
            _refuse_transaction()
        with import_module("django.db.transaction").atomic(using=connection.alias), connection.cursor() as cursor:

            def execute(query: str, values: Sequence[object]) -> object:
                cursor.execute(query, values)
                return cursor.fetchone()[0]

            yield execute
    elif hasattr(connection, "in_transaction") and hasattr(connection, "begin_nested"):  # SQLAlchemy
        if is_outermost and connection.in_transaction():
            _refuse_transaction()
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            inner = connection if hasattr(connection, "exec_driver_sql") else connection.connection()
            yield lambda query, values: inner.exec_driver_sql(query, tuple(values)).scalar()
    else:
        raise TypeError(
            f"no transaction can be made with {type(connection)!r}: give a connection of psycopg, a Connection or "
            "Session of SQLAlchemy, a connection of Django or its alias"
        )


@asynccontextmanager
async def begin_async(connection: Any, *, is_outermost: bool = True) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """As `begin`, for an AsyncConnection of psycopg."""
    if not hasattr(connection, "pgconn") or not hasattr(connection, "__aenter__"):
        raise TypeError(f"async with needs an AsyncConnection of psycopg, not {type(connection)!r}")
    if is_outermost and connection.info.transaction_status != 0:
        _refuse_transaction()

    async def execute(query: str, values: Sequence[object]) -> object:
        return _value(await connection.execute(query, values))

    async with connection.transaction():
        yield execute


def _value(cursor: Any) -> str:
    """The value as text, whatever the row factory of the connection makes of a row."""
    return bytes(cursor.pgresult.get_value(0, 0)).decode()


def _refuse_transaction() -> NoReturn:
    raise ValueError(
        "the connection is in a transaction already: context.transaction() makes its own, because the end of the task "
        "is the last statement before the commit"
    )
