"""What running tasks say of themselves (TaskContext.save_metadata, progress), on its way to their rows.

Of one task at most once a second, all tasks in one call: a task that reports every millisecond costs no more than
one that reports now and then. Between two writes the last word on each key counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reproq_listen.db.errors import CallError, DatabaseAway, DatabaseBusy
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Database
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask
from reproq_listen.protocol.envelope import UnusableNoteError, decode_note
from reproq_listen.runtime.wake_flag import wait_for_event

_PAUSE = 1.0  # seconds between two writes for one task
_BUSY_AGAIN = 0.1  # seconds until a row that somebody else held is tried again
_LAST_LIMIT = 5.0  # seconds that the end of a task waits for its last words
_MAX_BYTES = 60 << 10  # of one task in one write; the database takes 64 KiB
_MAX_ROWS = 100

Values = dict[str, msgspec.Raw]


class _Pending(Struct):
    """What waits to be written of one running task."""

    task: ClaimedTask
    values: Values
    is_written: asyncio.Event
    """Nothing waits, and nothing is on its way."""
    not_before: float = 0.0  # monotonic seconds


class MetadataWriter:
    """Owns what is not written yet."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log
        self._pending: dict[int, _Pending] = {}
        self._filled = asyncio.Event()

    def put(self, task: ClaimedTask, note: bytes) -> None:
        """Take over what a task says: a JSON object. What cannot be stored is dropped, and said in the log."""
        try:
            values = decode_note(note)
        except UnusableNoteError as error:
            self._drop(task, str(error))
            return
        pad = self._pending.get(task.result_id)
        if pad is not None and pad.task.lease_token != task.lease_token:
            pad = None
        merged = values if pad is None else pad.values | values
        if sum(len(key) + len(bytes(value)) for key, value in merged.items()) > _MAX_BYTES:
            self._drop(task, f"more than {_MAX_BYTES} bytes within a second")
            return
        if pad is None:
            pad = self._pending[task.result_id] = _Pending(task, {}, asyncio.Event())
        pad.values = merged
        pad.is_written.clear()
        self._filled.set()

    def has_some_of(self, task: ClaimedTask) -> bool:
        """Whether this task has said anything."""
        return task.result_id in self._pending

    async def last(self, task: ClaimedTask) -> None:
        """The task has ended: wait until all that it said is written, before its end is stored and its lease is over.

        What the database does not take in time is dropped."""
        pad = self._pending.get(task.result_id)
        if pad is None or pad.task.lease_token != task.lease_token:
            return
        pad.not_before = 0.0
        self._filled.set()
        if not await wait_for_event(pad.is_written, _LAST_LIMIT):
            self._drop(task, f"it could not be written within {_LAST_LIMIT:g} s")
        if self._pending.get(task.result_id) is pad:
            del self._pending[task.result_id]

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._filled.clear()
            waiting = [pad for pad in self._pending.values() if pad.values]
            due = [pad for pad in waiting if pad.not_before <= loop.time()]
            if due:
                await self._write(due[:_MAX_ROWS])
            elif waiting:
                pause = min(pad.not_before for pad in waiting) - loop.time()
                await wait_for_event(self._filled, pause)
            else:
                await self._filled.wait()

    async def _write(self, pending: Sequence[_Pending]) -> None:
        taken = [pad.values for pad in pending]
        for pad in pending:
            pad.values = {}
            pad.not_before = asyncio.get_running_loop().time() + _PAUSE
        tasks = [pad.task for pad in pending]
        texts = [_text(values) for values in taken]
        try:
            answers = await retry_until_answered(
                lambda: self._database.save_metadata(tasks, texts), self._log, errors=(DatabaseAway, DatabaseBusy)
            )
        except CallError as refusal:
            for pad in pending:
                self._drop(pad.task, str(refusal))
        else:
            for pad, values, answer in zip(pending, taken, answers, strict=True):
                if answer.answer == "busy":
                    pad.values = values | pad.values
                    pad.not_before = asyncio.get_running_loop().time() + _BUSY_AGAIN
        for pad in pending:
            if not pad.values:
                pad.is_written.set()

    def _drop(self, task: ClaimedTask, why: str) -> None:
        self._log.warning(
            Event.TASK_WARNING,
            task_id=task.result_id,
            attempt=task.attempts,
            message=f"what the task said of itself was dropped: {why}",
        )


def _text(values: Values) -> str:
    return msgspec.json.encode(values).decode()
