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
from reproq_listen.db.retry import insist
from reproq_listen.db.worker_queries import Answer, Database
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask, Outcome, TaskError
from reproq_listen.runtime.wake_flag import wait_for_event

_MOST_ROWS = 200
_MOST_SUMMARY = 200  # characters
_MOST_BYTES = 8 << 20  # of results in one call
_REFUSED_AGAIN = 2.0  # seconds
_BUSY_AGAIN = 0.2  # seconds until a row that somebody else held is tried again


class Road(Enum):
    """How an attempt leaves this process."""

    COMPLETE = "complete"
    FAIL = "fail"
    RELEASE = "release"


class Ending(Struct, frozen=True):
    """One attempt's end. `text` is JSON: the result or the error; empty for a release."""

    task: ClaimedTask
    road: Road
    text: str = ""
    kind: str = ""
    summary: str = ""  # of the error, for the log
    logs_uri: str | None = None
    account: str | None = None  # JSON; of a failure it stands in the error
    replaced: bool = False  # the database refused the true end; this says so


def ending_of(task: ClaimedTask, outcome: Outcome) -> Ending:
    """The end that this outcome is."""
    if outcome.error is None:
        text = "null" if outcome.result is None else outcome.result
        account = None if outcome.account is None else msgspec.json.encode(outcome.account).decode()
        return Ending(task, Road.COMPLETE, text, logs_uri=outcome.logs_uri, account=account)
    text = msgspec.json.encode(outcome.error).decode()
    summary = outcome.error.message[:_MOST_SUMMARY]
    return Ending(task, Road.FAIL, text, outcome.error.kind, summary, outcome.logs_uri)


def _replaced(ending: Ending, reason: str) -> Ending:
    """What becomes of an end that the database cannot store: a definite failure that says why."""
    what = "result" if ending.road is Road.COMPLETE else "error"
    error = TaskError(kind="invalid_result", message=f"the database cannot store the {what} of this task: {reason}")
    return msgspec.structs.replace(ending_of(ending.task, Outcome(result=None, error=error)), replaced=True)


class Outbox:
    """Owns the ends not yet stored. `on_settled` hears each definite answer once, those of one call together."""

    def __init__(
        self, database: Database, on_settled: Callable[[Sequence[tuple[Ending, Answer]]], None], log: Log
    ) -> None:
        self._database = database
        self._on_settled = on_settled
        self._log = log
        self._waiting: deque[Ending] = deque()
        self._in_flight = 0
        self._filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._waiting) + self._in_flight

    def put(self, ending: Ending) -> None:
        """Take an end over. It is written as soon as the database lets us."""
        self._waiting.append(ending)
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

    def _take_batch(self) -> list[Ending]:
        """The next ends of one road, in the order they came, within the bounds of a call.

        Ends of other roads that stand before the last one taken keep their places.
        """
        road = self._waiting[0].road
        batch: dict[int, Ending] = {}
        passed: list[Ending] = []
        size = 0
        while self._waiting and len(batch) < _MOST_ROWS and len(passed) < _MOST_ROWS:
            ending = self._waiting[0]
            if batch and size + len(ending.text) > _MOST_BYTES:
                break
            self._waiting.popleft()
            # Two attempts of one task never share a call: its answers tell tasks apart, not attempts.
            if ending.road is not road or ending.task.result_id in batch:
                passed.append(ending)
            else:
                batch[ending.task.result_id] = ending
                size += len(ending.text)
        self._waiting.extendleft(reversed(passed))
        return list(batch.values())

    async def _write(self, batch: Sequence[Ending]) -> list[Ending]:
        """Write a batch until it has answers, and give the rows that were busy.

        A batch refused for its content is split, until the guilty end stands alone and is replaced. A refusal that is
        not about content (a right or a function is missing) keeps the batch until a human has cured it.
        """
        try:
            answers = await insist(lambda: self._call(batch), self._log, errors=(DatabaseAway, DatabaseBusy))
        except ValueRefused as refusal:
            return await self._split(batch, refusal)
        except CallRefused as refusal:
            self._log.error(Event.DATABASE_REFUSED, reason=str(refusal), sqlstate=refusal.sqlstate)
            await asyncio.sleep(_REFUSED_AGAIN)
            return list(batch)
        by_id = {answer.result_id: answer for answer in answers}
        busy: list[Ending] = []
        settled: list[tuple[Ending, Answer]] = []
        for ending in batch:
            answer = by_id.get(ending.task.result_id)
            if answer is None or answer.answer == "busy":
                busy.append(ending)
            else:
                settled.append((ending, answer))
        if settled:
            self._on_settled(settled)
        return busy

    async def _split(self, batch: Sequence[Ending], refusal: ValueRefused) -> list[Ending]:
        if len(batch) > 1:
            half = len(batch) // 2
            return [*await self._write(batch[:half]), *await self._write(batch[half:])]
        guilty = batch[0]
        self._log.warning(Event.RESULT_REFUSED, task_id=guilty.task.result_id, reason=str(refusal))
        if guilty.replaced:  # plain words were refused too: leave the task to the end of its lease
            self._on_settled([(guilty, Answer(guilty.task.result_id, "lost"))])
            return []
        return await self._write([_replaced(guilty, str(refusal))])

    def _call(self, batch: Sequence[Ending]) -> Awaitable[list[Answer]]:
        tasks = [ending.task for ending in batch]
        texts = [ending.text for ending in batch]
        uris = [ending.logs_uri for ending in batch]
        match batch[0].road:
            case Road.COMPLETE:
                return self._database.complete(tasks, texts, uris, [ending.account for ending in batch])
            case Road.FAIL:
                return self._database.fail(tasks, texts, uris)
            case Road.RELEASE:
                return self._database.release(tasks)
