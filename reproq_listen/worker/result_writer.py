"""Writes the results of attempts to the database, and keeps each one until it has a definite answer.

Every call is repeated with the same ids and tokens, so a lost reply costs nothing: the database answers `already`.
While one call is made the next batch gathers, so a busy worker writes many results in one transaction. The call that
stores successes also claims the next tasks if the worker asks for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

import msgspec
from msgspec import Struct

from reproq_listen.db.errors import (
    CallError,
    CallTooLarge,
    CallTooSlow,
    DatabaseAway,
    DatabaseBusy,
    RowRefused,
    ValueRefused,
)
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Answer, ClaimRequest, WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask, Outcome, TaskError
from reproq_listen.runtime.wake_flag import wait_for_event

_MAX_ROWS = 200
_MAX_SUMMARY = 200  # characters
_MAX_BYTES = 8 << 20  # of results in one call
_BAD_TASK = "RQ002"  # SQLSTATE: a task that should follow this one cannot be enqueued
_REFUSED_PAUSE = 2.0  # seconds until a result is tried again that a human or the server must make room for
_BUSY_RETRY_PAUSE = 0.2  # seconds until a row that another session holds is tried again
_MAX_TRIES_ALONE = 5  # calls with one result that the server gave up; then the result is too large for it


class ResultKind(Enum):
    """How an attempt ends: the function that stores it."""

    COMPLETE = "complete"
    COMPLETE_AND_ENQUEUE = "complete_and_enqueue"
    FAIL = "fail"
    RELEASE = "release"


class AttemptResult(Struct, frozen=True):
    """The end of one attempt. `text` is JSON: the result or the error; empty for a release."""

    task: ClaimedTask
    kind: ResultKind
    text: str = ""
    error_kind: str = ""
    summary: str = ""  # of the error, for the log
    logs_uri: str | None = None
    follow_ups: str = ""  # JSON: the tasks to enqueue with it
    usage: str | None = None  # JSON; a failure has it in the error
    is_replacement: bool = False  # the database refused the true result; this error says so
    tries: int = 0  # calls with this result alone that the server gave up


Answers = Sequence[tuple[AttemptResult, Answer]]


def result_of(task: ClaimedTask, outcome: Outcome) -> AttemptResult:
    """The result to store for this outcome."""
    if outcome.error is None:
        text = "null" if outcome.result is None else outcome.result
        usage = None if outcome.usage is None else msgspec.json.encode(outcome.usage).decode()
        kind = ResultKind.COMPLETE if outcome.follow_ups is None else ResultKind.COMPLETE_AND_ENQUEUE
        follow_ups = outcome.follow_ups or ""
        return AttemptResult(task, kind, text, logs_uri=outcome.logs_uri, follow_ups=follow_ups, usage=usage)
    text = msgspec.json.encode(outcome.error).decode()
    summary = outcome.error.message[:_MAX_SUMMARY]
    return AttemptResult(task, ResultKind.FAIL, text, outcome.error.kind, summary, outcome.logs_uri)


def _replacement(result: AttemptResult, reason: str) -> AttemptResult:
    """The failure to store instead of a result that the database cannot store."""
    what = "error" if result.kind is ResultKind.FAIL else "result"
    error = TaskError(kind="invalid_result", message=f"the database cannot store the {what} of this task: {reason}")
    return msgspec.structs.replace(result_of(result.task, Outcome(result=None, error=error)), is_replacement=True)


class ResultWriter:
    """Owns the results that are not stored yet."""

    def __init__(
        self,
        queries: WorkerQueries,
        on_answers: Callable[[Answers], None],
        log: Log,
        next_claim: Callable[[], ClaimRequest | None] = lambda: None,
        on_claimed: Callable[[list[ClaimedTask] | CallError], None] = lambda _: None,
        refused_pause: float = _REFUSED_PAUSE,
    ) -> None:
        """`on_answers` gets each definite answer once, those of one call together. `refused_pause`: seconds.

        `next_claim` gives the claim to send with a call that stores successes. Then `on_claimed` gets its tasks, or the
        error of the call; the results of that call are stored by another one, without a claim.
        """
        self._queries = queries
        self._on_answers = on_answers
        self._next_claim = next_claim
        self._on_claimed = on_claimed
        self._log = log
        self._refused_pause = refused_pause
        self._waiting: deque[AttemptResult] = deque()
        self._in_flight = 0
        self._later = 0  # results that are tried again after a pause
        self._has_work = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._waiting) + self._in_flight + self._later

    @property
    def ends_with_success(self) -> bool:
        """Whether the last result waits to be stored, and is a success: the call that stores it may claim, too."""
        return bool(self._waiting) and self._waiting[-1].kind is ResultKind.COMPLETE

    def put(self, result: AttemptResult) -> None:
        """Store a result as soon as the database allows."""
        self._waiting.append(result)
        self._empty.clear()
        self._has_work.set()

    async def flushed(self, seconds: float) -> bool:
        """Wait at most `seconds` until all results are stored. False: some are not."""
        return await wait_for_event(self._empty, seconds)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._has_work.wait()
            batch = self._take_batch()
            self._in_flight = len(batch)
            self._write_later(await self._write(batch), self._refused_pause)
            self._in_flight = 0
            if not self._waiting:
                self._has_work.clear()
                if not self._later:
                    self._empty.set()

    def _write_later(self, results: Sequence[AttemptResult], seconds: float) -> None:
        """Write results again after a pause, behind the others that wait then."""

        def write() -> None:
            self._later -= len(results)
            for result in results:
                self.put(result)

        if results:
            self._later += len(results)
            asyncio.get_running_loop().call_later(seconds, write)

    def _take_batch(self) -> list[AttemptResult]:
        """The next results of one kind, in their order, within the bounds of a call.

        Results of other kinds between them keep their places.
        """
        kind = self._waiting[0].kind
        batch: dict[int, AttemptResult] = {}
        skipped: list[AttemptResult] = []
        size = 0
        while self._waiting and len(batch) < _MAX_ROWS and len(skipped) < _MAX_ROWS:
            result = self._waiting[0]
            if batch and size + len(result.text) + len(result.follow_ups) > _MAX_BYTES:
                break
            self._waiting.popleft()
            # Two attempts of one task never share a call: its answers have the task's id, not the attempt's.
            if result.kind is not kind or result.task.result_id in batch:
                skipped.append(result)
            else:
                batch[result.task.result_id] = result
                size += len(result.text) + len(result.follow_ups)
        self._waiting.extendleft(reversed(skipped))
        return list(batch.values())

    async def _write(self, batch: Sequence[AttemptResult]) -> list[AttemptResult]:
        """Write a batch until it has answers. Returns the results that are to be written again after a pause.

        A batch that the database refuses, or that takes too long, is split until each half is accepted or is one
        result, so that one result stops no other one. So is one whose follow-ups wait for what another session holds: a
        producer may keep a unique key for long.
        """
        has_follow_ups = batch[0].kind is ResultKind.COMPLETE_AND_ENQUEUE
        try:
            answers = await self._complete_and_claim(batch)
            if answers is None:
                answers = await retry_until_answered(
                    lambda: self._call(batch),
                    self._log,
                    errors=(DatabaseAway, DatabaseBusy),
                    unless=(DatabaseBusy if has_follow_ups else CallTooLarge, CallTooSlow),
                )
        except CallError as error:
            return await (self._split(batch, error) if len(batch) > 1 else self._refused(batch[0], error))
        by_id = {answer.result_id: answer for answer in answers}
        busy: list[AttemptResult] = []
        definite: list[tuple[AttemptResult, Answer]] = []
        for result in batch:
            answer = by_id.get(result.task.result_id)
            if answer is None or answer.answer == "busy":
                busy.append(result)
            else:
                definite.append((result, answer))
        self._write_later(busy, _BUSY_RETRY_PAUSE)
        if definite:
            self._on_answers(definite)
        return []

    async def _complete_and_claim(self, batch: Sequence[AttemptResult]) -> list[Answer] | None:
        """Store successes and claim the next tasks in one call. None: there was no such call, or it failed."""
        request = self._next_claim() if batch[0].kind is ResultKind.COMPLETE else None
        if request is None:
            return None
        try:
            answers, tasks = await self._queries.complete_and_claim(*_completions(batch), request)
        except CallError as error:
            self._on_claimed(error)
            return None
        self._on_claimed(tasks)
        return answers

    async def _split(self, batch: Sequence[AttemptResult], error: CallError) -> list[AttemptResult]:
        """Write both halves. If nothing of the first one was accepted the second one waits, too, and goes first then:
        what is refused is likely no single result."""
        if not isinstance(error, DatabaseAway):
            self._log.warning(Event.DATABASE_REFUSED, reason=str(error), sqlstate=error.sqlstate, results=len(batch))
        half = len(batch) // 2
        kept = await self._write(batch[:half])
        rest = batch[half:] if len(kept) == half else await self._write(batch[half:])
        return [*rest, *kept]

    async def _refused(self, result: AttemptResult, error: CallError) -> list[AttemptResult]:
        """Store a failure instead of a result that the database refuses for good.

        Another one is kept: a human may have to grant a right or mend a trigger, and the lease is renewed meanwhile.
        """
        tries = result.tries + isinstance(error, CallTooLarge)
        is_for_good = (
            isinstance(error, ValueRefused | RowRefused) or tries >= _MAX_TRIES_ALONE or error.sqlstate == _BAD_TASK
        )
        log = self._log.bind(task_id=result.task.result_id)
        if is_for_good and not result.is_replacement and result.kind is not ResultKind.RELEASE:
            log.warning(Event.RESULT_REFUSED, reason=str(error), sqlstate=error.sqlstate)
            return await self._write([_replacement(result, str(error))])
        log.error(Event.DATABASE_REFUSED, reason=str(error), sqlstate=error.sqlstate)
        return [msgspec.structs.replace(result, tries=tries)]

    def _call(self, batch: Sequence[AttemptResult]) -> Awaitable[list[Answer]]:
        tasks = [result.task for result in batch]
        match batch[0].kind:
            case ResultKind.COMPLETE:
                return self._queries.complete(*_completions(batch))
            case ResultKind.COMPLETE_AND_ENQUEUE:
                tasks, texts, uris, usages = _completions(batch)
                return self._queries.complete_and_enqueue(tasks, texts, [r.follow_ups for r in batch], uris, usages)
            case ResultKind.FAIL:
                return self._queries.fail(
                    tasks, [result.text for result in batch], [result.logs_uri for result in batch]
                )
            case ResultKind.RELEASE:
                return self._queries.release(tasks)


def _completions(
    batch: Sequence[AttemptResult],
) -> tuple[list[ClaimedTask], list[str], list[str | None], list[str | None]]:
    """The arguments of `WorkerQueries.complete`."""
    tasks = [result.task for result in batch]
    texts = [result.text for result in batch]
    return tasks, texts, [result.logs_uri for result in batch], [result.usage for result in batch]
