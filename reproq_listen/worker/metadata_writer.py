"""Writes the metadata of running tasks (TaskContext.save_metadata, progress) to their rows.

At most once a second for each task, all tasks in one call: a task that reports every millisecond costs no more than one
that reports now and then. Between two writes the last value of each key counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reproq_listen.db.errors import CallError, CallTooLarge, DatabaseAway, DatabaseBusy, RowRefused, ValueRefused
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import WorkerQueries
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import ClaimedTask
from reproq_listen.protocol.envelope import UnusableMetadataError, decode_metadata
from reproq_listen.runtime.wake_flag import wait_for_event

_PAUSE = 1.0  # seconds between two writes for one task
_BUSY_RETRY_PAUSE = 0.1  # seconds until a row that another session holds is tried again
_FLUSH_LIMIT = 5.0  # seconds that the end of a task waits for its last metadata
_MAX_BYTES = 60 << 10  # of one task in one write; the database takes 64 KiB
_MAX_ROWS = 100

Values = dict[str, msgspec.Raw]


class _Pending(Struct):
    """The unwritten metadata of one running task."""

    task: ClaimedTask
    values: Values
    is_written: asyncio.Event
    """No value waits, and none is being written."""
    not_before: float = 0.0  # monotonic seconds


class MetadataWriter:
    """Owns the metadata that is not written yet."""

    def __init__(self, queries: WorkerQueries, log: Log) -> None:
        self._queries = queries
        self._log = log
        self._pending: dict[int, _Pending] = {}
        self._has_work = asyncio.Event()

    def put(self, task: ClaimedTask, note: bytes) -> None:
        """Write `note`, a JSON object, soon. A note that cannot be stored is dropped with a warning in the log."""
        try:
            values = decode_metadata(note)
        except UnusableMetadataError as error:
            self._drop(task, str(error))
            return
        pending = self._pending.get(task.result_id)
        if pending is not None and pending.task.lease_token != task.lease_token:
            pending = None
        merged = values if pending is None else pending.values | values
        if sum(len(key) + len(bytes(value)) for key, value in merged.items()) > _MAX_BYTES:
            self._drop(task, f"more than {_MAX_BYTES} bytes within a second")
            return
        if pending is None:
            pending = self._pending[task.result_id] = _Pending(task, {}, asyncio.Event())
        pending.values = merged
        pending.is_written.clear()
        self._has_work.set()

    def has_any_of(self, task: ClaimedTask) -> bool:
        """Whether this task has reported metadata."""
        return task.result_id in self._pending

    async def flush(self, task: ClaimedTask) -> None:
        """The task has ended: wait until its metadata is written, before its end is stored and its lease is over.

        Metadata that the database does not take in time is dropped."""
        pending = self._pending.get(task.result_id)
        if pending is None or pending.task.lease_token != task.lease_token:
            return
        pending.not_before = 0.0
        self._has_work.set()
        if not await wait_for_event(pending.is_written, _FLUSH_LIMIT):
            self._drop(task, f"it could not be written within {_FLUSH_LIMIT:g} s")
        if self._pending.get(task.result_id) is pending:
            del self._pending[task.result_id]

    async def run(self) -> None:
        """Write until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._has_work.clear()
            waiting = [pending for pending in self._pending.values() if pending.values]
            due = [pending for pending in waiting if pending.not_before <= loop.time()]
            if due:
                await self._write(due[:_MAX_ROWS])
            elif waiting:
                pause = min(pending.not_before for pending in waiting) - loop.time()
                await wait_for_event(self._has_work, pause)
            else:
                await self._has_work.wait()

    async def _write(self, batch: Sequence[_Pending]) -> None:
        taken = [pending.values for pending in batch]
        for pending in batch:
            pending.values = {}
            pending.not_before = asyncio.get_running_loop().time() + _PAUSE
        await self._save(batch, taken)
        for pending in batch:
            if not pending.values:
                pending.is_written.set()

    async def _save(self, batch: Sequence[_Pending], taken: Sequence[Values]) -> None:
        """Write `taken`. What the database refuses is dropped; a batch is split, so that the rest of it is written."""
        tasks = [pending.task for pending in batch]
        texts = [_text(values) for values in taken]
        try:
            answers = await retry_until_answered(
                lambda: self._queries.save_metadata(tasks, texts),
                self._log,
                errors=(DatabaseAway, DatabaseBusy),
                unless=(CallTooLarge,),
            )
        except CallError as refusal:
            half = len(batch) // 2
            if half and isinstance(refusal, ValueRefused | RowRefused | CallTooLarge):
                await self._save(batch[:half], taken[:half])
                await self._save(batch[half:], taken[half:])
                return
            for pending in batch:
                self._drop(pending.task, str(refusal))
        else:
            for pending, values, answer in zip(batch, taken, answers, strict=True):
                if answer.answer == "busy":
                    pending.values = values | pending.values
                    pending.not_before = asyncio.get_running_loop().time() + _BUSY_RETRY_PAUSE

    def _drop(self, task: ClaimedTask, reason: str) -> None:
        self._log.warning(
            Event.TASK_WARNING,
            task_id=task.result_id,
            attempt=task.attempts,
            message=f"metadata of the task was dropped: {reason}",
        )


def _text(values: Values) -> str:
    return msgspec.json.encode(values).decode()
