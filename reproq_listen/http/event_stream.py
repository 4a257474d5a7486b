"""The broker behind /events: the last 200 events of tasks, and a bounded queue for each subscriber.

A subscriber that reads too slowly loses events and gets a `gap` event with their number. It never delays the worker or
another subscriber.
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
"""Events kept for one subscriber that does not read."""

TYPES = {
    Event.TASK_STARTED: ("info", "started"),
    Event.TASK_SUCCESS: ("info", "succeeded"),
    Event.TASK_FAILED: ("error", "failed"),
    Event.TASK_RETRY: ("warn", "failed and will be tried again"),
    Event.TASK_REJECTED: ("warn", "was refused: it may not run here"),
    Event.TASK_INVALID: ("error", "has a spec or a result that cannot be used"),
    Event.TASK_CANCELLED: ("warn", "was cancelled"),
    Event.TASK_INFRA_ERROR: ("error", "ended with its process, or with its lease"),
}
"""The events that are published, each with the level that the Go program gives it and its text. No payload and no error
text: subscribers may not see them."""
_METADATA = ("attempt", "task_path", "kind", "retry_in", "waited")


class TaskEvent(Struct, frozen=True):
    """One event, as it goes to subscribers. Clients of the Go program need these types: no null, texts in metadata."""

    ts: str
    level: str
    type: str
    msg: str
    queue: str
    task_id: int
    worker_id: str
    metadata: dict[str, str]


class EventFilter(Struct, frozen=True):
    """Which events a subscriber wants. None: all."""

    queue: str | None = None
    worker_id: str | None = None
    task_id: int | None = None

    def matches(self, event: TaskEvent) -> bool:
        return (
            self.queue in (None, event.queue)
            and self.worker_id in (None, event.worker_id)
            and self.task_id in (None, event.task_id)
        )


class Subscriber:
    """The queue of events for one client."""

    def __init__(self, wanted: EventFilter) -> None:
        self._wanted = wanted
        self._waiting: deque[tuple[int, TaskEvent]] = deque()
        self._missed = 0
        self._is_closed = False
        self._changed = asyncio.Event()

    def put(self, number: int, event: TaskEvent) -> int:
        """Queue the event if it is wanted. Gives the number of events dropped to make room."""
        if not self._wanted.matches(event):
            return 0
        dropped = 0
        if len(self._waiting) >= _MAX_WAITING:
            self._waiting.popleft()
            self._missed += 1
            dropped = 1
        self._waiting.append((number, event))
        self._changed.set()
        return dropped

    def close(self) -> None:
        self._is_closed = True
        self._changed.set()

    async def next(self) -> bytes | None:
        """Wait for events, and give all of them as server-sent events. None: there will be no more."""
        await self._changed.wait()
        if self._is_closed:
            return None
        self._changed.clear()
        text = b""
        if self._missed:
            text = b"event: gap\ndata: %b\n\n" % _ENCODE(_gap_event(self._missed))
            self._missed = 0
        events, self._waiting = self._waiting, deque()
        return text + b"".join(b"id: %d\ndata: %b\n\n" % (number, _ENCODE(event)) for number, event in events)


class EventBroker:
    """Taps the log for the events of tasks, and publishes them to subscribers."""

    def __init__(self) -> None:
        self._ring: deque[tuple[int, TaskEvent]] = deque(maxlen=RING)
        self._subscribers: set[Subscriber] = set()
        self._number = 0
        self.dropped = 0

    def tap(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        if event in TYPES:
            self.publish(_task_event(event, fields))

    def publish(self, event: TaskEvent) -> None:
        self._number += 1
        self._ring.append((self._number, event))
        for subscriber in self._subscribers:
            self.dropped += subscriber.put(self._number, event)

    def subscribe(self, wanted: EventFilter, after: int = 0) -> Subscriber:
        """Give a subscriber that first gets the events of the ring with a number greater than `after`."""
        subscriber = Subscriber(wanted)
        for number, event in self._ring:
            if number > after or after > self._number:  # a number from before a restart means nothing here
                subscriber.put(number, event)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End the streams of all subscribers."""
        for subscriber in self._subscribers:
            subscriber.close()

    def __len__(self) -> int:
        return len(self._subscribers)


_ENCODE = msgspec.json.Encoder().encode


def _task_event(event: Event, fields: Mapping[str, object]) -> TaskEvent:
    task_id = fields.get("task_id")
    level, text = TYPES[event]
    return TaskEvent(
        ts=_now(),
        level=level,
        type=event.value,
        msg=f"task {task_id} {text}",
        queue=str(fields.get("queue", "")),
        task_id=task_id if isinstance(task_id, int) else 0,
        worker_id=str(fields.get("worker_id", "")),
        metadata={name: _text(fields[name]) for name in _METADATA if fields.get(name) is not None},
    )


def _gap_event(missed: int) -> TaskEvent:
    return TaskEvent(_now(), "warn", "gap", f"{missed} events were dropped", "", 0, "", {"missed": str(missed)})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(value: object) -> str:
    """Durations in seconds."""
    return f"{value.total_seconds():.6f}" if isinstance(value, timedelta) else str(value)
