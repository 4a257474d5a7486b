"""The feed behind /events: the last 200 events of tasks, and a bounded queue for each reader.

A reader that is too slow loses events, never holds anybody up, and is told how many it missed (`gap`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

from reproq_listen.logs.event_log import Event

RING = 200
_MAX_WAITING = 256
"""Events kept for one reader that does not read."""

TYPES = {
    Event.TASK_STARTED: "started",
    Event.TASK_SUCCESS: "succeeded",
    Event.TASK_FAILED: "failed",
    Event.TASK_RETRY: "failed and will be tried again",
    Event.TASK_REJECTED: "was refused: it may not run here",
    Event.TASK_INVALID: "has a spec or a result that cannot be used",
    Event.TASK_CANCELLED: "was cancelled",
    Event.TASK_INFRA_ERROR: "ended with its process, or with its lease",
}
"""What is told of tasks, and how. Nothing that a task or its error says: readers may not see payloads."""
_METADATA = ("attempt", "task_path", "kind", "retry_in", "waited")


class TaskEvent(Struct, frozen=True):
    """One event, as it goes to readers."""

    ts: str
    level: str
    type: str
    msg: str
    queue: str | None
    task_id: int | None
    worker_id: str | None
    metadata: dict[str, object]


class Filter(Struct, frozen=True):
    """What a reader wants to hear. None: all."""

    queue: str | None = None
    worker_id: str | None = None
    task_id: int | None = None

    def wants(self, event: TaskEvent) -> bool:
        return (
            self.queue in (None, event.queue)
            and self.worker_id in (None, event.worker_id)
            and self.task_id in (None, event.task_id)
        )


class Reader:
    """The events on their way to one reader."""

    def __init__(self, wanted: Filter) -> None:
        self._wanted = wanted
        self._waiting: deque[tuple[int, TaskEvent]] = deque()
        self._missed = 0
        self._something = asyncio.Event()

    def offer(self, number: int, event: TaskEvent) -> int:
        """Keep the event if it is wanted; gives how many events were dropped to make room."""
        if not self._wanted.wants(event):
            return 0
        dropped = 0
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self._missed += 1
            dropped = 1
        self._waiting.append((number, event))
        self._something.set()
        return dropped

    async def next(self) -> bytes:
        """Wait for events, and give all that are there as server-sent events."""
        await self._something.wait()
        self._something.clear()
        text = b""
        if self._missed:
            text = f'event: gap\ndata: {{"missed": {self._missed}}}\n\n'.encode()
            self._missed = 0
        events, self._waiting = self._waiting, deque()
        return text + b"".join(b"id: %d\ndata: %b\n\n" % (number, _ENCODE(event)) for number, event in events)


class EventBroker:
    """Taps the log for what happens to tasks, and gives it to readers."""

    def __init__(self) -> None:
        self._ring: deque[tuple[int, TaskEvent]] = deque(maxlen=RING)
        self._readers: set[Reader] = set()
        self._number = 0
        self.dropped = 0

    def tap(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        if event not in TYPES:
            return
        self._number += 1
        numbered = (self._number, _told(event, level, fields))
        self._ring.append(numbered)
        for reader in self._readers:
            self.dropped += reader.offer(*numbered)

    def subscribe(self, wanted: Filter, after: int = 0) -> Reader:
        """Give a reader that first gets what the ring holds of later number than `after`."""
        reader = Reader(wanted)
        for number, event in self._ring:
            if number > after or after > self._number:  # a number of an earlier start says nothing
                reader.offer(number, event)
        self._readers.add(reader)
        return reader

    def unsubscribe(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def __len__(self) -> int:
        return len(self._readers)


_ENCODE = msgspec.json.Encoder().encode
_LEVELS = {10: "debug", 20: "info", 30: "warn", 40: "error"}


def _told(event: Event, level: int, fields: Mapping[str, object]) -> TaskEvent:
    task_id, queue, worker_id = (fields.get(name) for name in ("task_id", "queue", "worker_id"))
    return TaskEvent(
        ts=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        level=_LEVELS.get(level, "info"),
        type=event.value,
        msg=f"task {task_id} {TYPES[event]}",
        queue=str(queue) if queue is not None else None,
        task_id=task_id if isinstance(task_id, int) else None,
        worker_id=str(worker_id) if worker_id is not None else None,
        metadata={name: _plain(fields[name]) for name in _METADATA if fields.get(name) is not None},
    )


def _plain(value: object) -> object:
    return round(value.total_seconds(), 6) if isinstance(value, timedelta) else value
