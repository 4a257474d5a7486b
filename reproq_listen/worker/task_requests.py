"""Answers what running tasks ask: their limits, and what the database says under the fence of the attempt.

One request after the other, because all share one connection; a task waits for its answer. A database that is away is
waited for. A request that meets a row which another session holds is made again later: others go first meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

import msgspec
from msgspec import Struct

from reproq_listen.db.errors import CallError, DatabaseAway, DatabaseBusy
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.executors.admission import time_limit
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask
from reproq_listen.protocol.executor import NUMBER_BYTES

Reply = Callable[[bytes], None]

_BUSY_RETRY_PAUSE = 1.0  # seconds until a request is made again that could not have what it needs


class _Request(Struct):
    """What a task asks. `op` says which of the other members count."""

    op: str
    after: int = 0
    after_name: str = ""
    name: str = ""
    value: msgspec.Raw = msgspec.Raw(b"null")


class _Asked(NamedTuple):
    task: ClaimedTask
    number: bytes
    request: _Request
    reply: Reply


class _LostError(Exception):
    """The fence holds no task any more."""


class TaskRequests:
    """Owns the requests that have no reply yet."""

    def __init__(self, queries: WorkerQueries, schema: str | None, exec_timeout: timedelta, log: Log) -> None:
        self._queries = queries
        self._schema = schema
        self._exec_timeout = exec_timeout
        self._log = log
        self._asked: asyncio.Queue[_Asked] = asyncio.Queue()

    def put(self, task: ClaimedTask, body: bytes, reply: Reply) -> None:
        """Answer a request of a task soon. `body`: its number, then a JSON object."""
        number, text = body[:NUMBER_BYTES], body[NUMBER_BYTES:]
        try:
            request = msgspec.json.decode(text, type=_Request)
        except (msgspec.MsgspecError, RecursionError) as error:
            reply(number + _error(f"the request cannot be read: {error}"))
            return
        if request.op == "attempt":
            reply(number + msgspec.json.encode({"value": self._attempt(task)}))
        else:
            self._asked.put_nowait(_Asked(task, number, request, reply))

    def _attempt(self, task: ClaimedTask) -> dict[str, object]:
        """What the task may know of its attempt: its fence, too, which lets it do what the worker does for it."""
        return {
            "lease_token": str(task.lease_token),
            "schema": self._schema,
            "max_attempts": task.max_attempts,
            "timeout_seconds": time_limit(task, self._exec_timeout).total_seconds(),
        }

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            asked = await self._asked.get()
            try:
                asked.reply(asked.number + await self._answer(asked.task, asked.request))
            except DatabaseBusy as busy:
                self._log.warning(Event.DATABASE_REFUSED, reason=str(busy), sqlstate=busy.sqlstate)
                asyncio.get_running_loop().call_later(_BUSY_RETRY_PAUSE, self._asked.put_nowait, asked)

    async def _answer(self, task: ClaimedTask, request: _Request) -> bytes:
        """Raises DatabaseBusy."""
        call = self._call(task, request)
        if call is None:
            return _error(f"this worker knows no request {request.op!r}")
        try:
            value = await retry_until_answered(call, self._log, errors=(DatabaseAway,))
        except _LostError:
            return b'{"lost": true}'
        except DatabaseBusy:
            raise
        except CallError as refusal:
            return _error(f"the database refused: {refusal}")
        return b'{"value": ' + value.encode() + b"}"

    def _call(self, task: ClaimedTask, request: _Request) -> Callable[[], Awaitable[str]] | None:
        """The call that gives the value of the answer, as JSON text. None: there is no such request."""
        match request.op:
            case "results":
                return lambda: self._results(task, request.after)
            case "steps":
                return lambda: self._steps(task, request.after_name)
            case "step":
                return lambda: self._step(task, request.name, bytes(request.value).decode())
            case _:
                return None

    async def _results(self, task: ClaimedTask, after: int) -> str:
        page = await self._queries.results(task, after)
        if page.answer == "lost":
            raise _LostError
        size, last = len(page.results.encode()), "null" if page.last_id is None else page.last_id
        return f'{{"expected": {page.expected}, "bytes": {size}, "last_id": {last}, "results": {page.results}}}'

    async def _steps(self, task: ClaimedTask, after: str) -> str:
        page = await self._queries.steps_done(task, after)
        if page.answer == "lost":
            raise _LostError
        return f'{{"last_name": {page.last_name or "null"}, "steps": {page.steps}}}'

    async def _step(self, task: ClaimedTask, name: str, value: str) -> str:
        """A step has a name of its own in an attempt, so `already` answers a call whose first reply was lost."""
        if await self._queries.step_save(task, name, value) == "lost":
            raise _LostError
        return "null"


def _error(text: str) -> bytes:
    return msgspec.json.encode({"error": text})
