"""Ends of attempts on their way to the database: kept until each has a definite answer.

Every call is repeated with the same ids and tokens, so a reply that was lost costs nothing: the database says
`already`. While one call is on its way the next batch gathers, so a busy worker writes many ends in one transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

import msgspec
from msgspec import Struct

from reproq_listen.db.errors import CallRefused, DatabaseAway, DatabaseBusy, ValueRefused
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Answer, Database
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask, Outcome, TaskError
from reproq_listen.runtime.wake_flag import wait_for_event

_MAX_ROWS = 200
_MAX_SUMMARY = 200  # characters
_MAX_BYTES = 8 << 20  # of results in one call
_REFUSED_AGAIN = 2.0  # seconds
_BUSY_AGAIN = 0.2  # seconds until a row that somebody else held is tried again


class ResultKind(Enum):
    """How an attempt leaves this process."""

    COMPLETE = "complete"
    FAIL = "fail"
    RELEASE = "release"


class AttemptResult(Struct, frozen=True):
    """One attempt's end. `text` is JSON: the result or the error; empty for a release."""

    task: ClaimedTask
    kind: ResultKind
    text: str = ""
    error_kind: str = ""
    summary: str = ""  # of the error, for the log
    logs_uri: str | None = None
    account: str | None = None  # JSON; of a failure it stands in the error
    replaced: bool = False  # the database refused the true end; this says so


def result_of(task: ClaimedTask, outcome: Outcome) -> AttemptResult:
    """The end that this outcome is."""
    if outcome.error is None:
        text = "null" if outcome.result is None else outcome.result
        account = None if outcome.account is None else msgspec.json.encode(outcome.account).decode()
        return AttemptResult(task, ResultKind.COMPLETE, text, logs_uri=outcome.logs_uri, account=account)
    text = msgspec.json.encode(outcome.error).decode()
    summary = outcome.error.message[:_MAX_SUMMARY]
    return AttemptResult(task, ResultKind.FAIL, text, outcome.error.kind, summary, outcome.logs_uri)


def _replaced(result: AttemptResult, reason: str) -> AttemptResult:
    """What becomes of an end that the database cannot store: a definite failure that says why."""
    what = "result" if result.kind is ResultKind.COMPLETE else "error"
    error = TaskError(kind="invalid_result", message=f"the database cannot store the {what} of this task: {reason}")
    return msgspec.structs.replace(result_of(result.task, Outcome(result=None, error=error)), replaced=True)


class ResultWriter:
    """Owns the ends not yet stored. `on_settled` hears each definite answer once, those of one call together."""

    def __init__(
        self, database: Database, on_settled: Callable[[Sequence[tuple[AttemptResult, Answer]]], None], log: Log
    ) -> None:
        self._database = database
        self._on_settled = on_settled
        self._log = log
        self._waiting: deque[AttemptResult] = deque()
        self._in_flight = 0
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._waiting) + self._in_flight

    def put(self, result: AttemptResult) -> None:
        """Take an end over. It is written as soon as the database lets us."""
        self._waiting.append(result)
        self._empty.clear()
        self._filled.set()

    async def flushed(self, seconds: float) -> bool:
        """Wait until nothing is left, at most so long. True if nothing is left."""
        return await wait_for_event(self._empty, seconds)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._filled.wait()
            batch = self._take_batch()
            self._in_flight = len(batch)
            busy = await self._write(batch)
            self._in_flight = 0
            self._waiting.extend(busy)
            if busy and len(busy) == len(self._waiting):
                await asyncio.sleep(_BUSY_AGAIN)
            if not self._waiting:
                self._filled.clear()
                self._empty.set()

    def _take_batch(self) -> list[AttemptResult]:
        """The next ends of one kind, in the order they came, within the bounds of a call.

        Ends of other channels that stand before the last one taken keep their places.
        """
        kind = self._waiting[0].kind
        batch: dict[int, AttemptResult] = {}
        passed: list[AttemptResult] = []
        size = 0
        while self._waiting and len(batch) < _MAX_ROWS and len(passed) < _MAX_ROWS:
            result = self._waiting[0]
            if batch and size + len(result.text) > _MAX_BYTES:
                break
            self._waiting.popleft()
            # Two attempts of one task never share a call: its answers tell tasks apart, not attempts.
            if result.kind is not kind or result.task.result_id in batch:
                passed.append(result)
            else:
                batch[result.task.result_id] = result
                size += len(result.text)
        self._waiting.extendleft(reversed(passed))
        return list(batch.values())

    async def _write(self, batch: Sequence[AttemptResult]) -> list[AttemptResult]:
        """Write a batch until it has answers, and give the rows that were busy.

        A batch refused for its content is split, until the guilty end stands alone and is replaced. A refusal that is
        not about content (a right or a function is missing) keeps the batch until a human has cured it.
        """
        try:
            answers = await retry_until_answered(
                lambda: self._call(batch), self._log, errors=(DatabaseAway, DatabaseBusy)
            )
        except ValueRefused as refusal:
            return await self._split(batch, refusal)
        except CallRefused as refusal:
            self._log.error(Event.DATABASE_REFUSED, reason=str(refusal), sqlstate=refusal.sqlstate)
            await asyncio.sleep(_REFUSED_AGAIN)
            return list(batch)
        by_id = {answer.result_id: answer for answer in answers}
        busy: list[AttemptResult] = []
        settled: list[tuple[AttemptResult, Answer]] = []
        for result in batch:
            answer = by_id.get(result.task.result_id)
            if answer is None or answer.answer == "busy":
                busy.append(result)
            else:
                settled.append((result, answer))
        if settled:
            self._on_settled(settled)
        return busy

    async def _split(self, batch: Sequence[AttemptResult], refusal: ValueRefused) -> list[AttemptResult]:
        if len(batch) > 1:
            half = len(batch) // 2
            return [*await self._write(batch[:half]), *await self._write(batch[half:])]
        guilty = batch[0]
        self._log.warning(Event.RESULT_REFUSED, task_id=guilty.task.result_id, reason=str(refusal))
        if guilty.replaced:  # plain words were refused too: leave the task to the end of its lease
            self._on_settled([(guilty, Answer(guilty.task.result_id, "lost"))])
            return []
        return await self._write([_replaced(guilty, str(refusal))])

    def _call(self, batch: Sequence[AttemptResult]) -> Awaitable[list[Answer]]:
        tasks = [result.task for result in batch]
        texts = [result.text for result in batch]
        uris = [result.logs_uri for result in batch]
        match batch[0].kind:
            case ResultKind.COMPLETE:
                return self._database.complete(tasks, texts, uris, [result.account for result in batch])
            case ResultKind.FAIL:
                return self._database.fail(tasks, texts, uris)
            case ResultKind.RELEASE:
                return self._database.release(tasks)
