"""The broker of /events: what is published, to which subscribers, and what a slow subscriber loses."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

from reproq_listen.http.event_stream import RING, TYPES, EventBroker, EventFilter, Subscriber
from reproq_listen.logs.event_log import Event, Log

CONTRACT_TYPES = {
    *("task_started", "task_success", "task_failed", "task_retry", "task_rejected", "task_invalid"),
    *("task_cancelled", "task_infra_error"),
}


def publish(broker: EventBroker, number: int, queue: str = "q") -> None:
    broker.tap(Event.TASK_SUCCESS, logging.INFO, {"task_id": number, "queue": queue, "worker_id": "w", "attempt": 1})


async def read(subscriber: Subscriber) -> list[dict[str, Any]]:
    """All events that wait for a subscriber."""
    text = (await asyncio.wait_for(subscriber.next(), 1) or b"").decode()
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    return [{**json.loads(block["data"]), "_": block.get("event", block.get("id"))} for block in blocks]


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [event["task_id"] for event in events]


def test_events_types_are_the_contracts() -> None:
    """Those events and no others leave the process."""
    assert {event.value for event in TYPES} == CONTRACT_TYPES


def test_event_has_the_fields_of_the_contract_and_no_payload() -> None:
    """ts, level, type, msg, queue, task_id, worker_id, metadata; what the task or its error says stays inside."""

    async def run() -> None:
        broker = EventBroker()
        log = Log(logging.getLogger("nowhere"), {"worker_id": "w"}, (broker.tap,))
        subscriber = broker.subscribe(EventFilter())
        log.warning(
            Event.TASK_RETRY,
            task_id=7,
            queue="mail",
            attempt=2,
            kind="app_error",
            error="the secret",
            retry_in=timedelta(seconds=3),
        )
        log.info(Event.WORKER_STOPPED)
        (event,) = await read(subscriber)
        assert event.pop("ts").endswith("Z")
        assert event == {
            "_": "1",
            "level": "warn",
            "type": "task_retry",
            "msg": "task 7 failed and will be tried again",
            "queue": "mail",
            "task_id": 7,
            "worker_id": "w",
            "metadata": {"attempt": "2", "kind": "app_error", "retry_in": "3.000000"},
        }
        log.debug(Event.TASK_STARTED, task_id=8, queue="mail", attempt=1)
        assert [each["level"] for each in await read(subscriber)] == ["info"]  # also when the log has it at debug

    asyncio.run(run())


def test_events_new_subscriber_gets_the_last_200() -> None:
    """The ring holds 200 events and forgets the oldest; Last-Event-ID skips events that the client knows."""

    async def run() -> None:
        broker = EventBroker()
        for number in range(1, RING + 51):
            publish(broker, number)
        assert ids(await read(broker.subscribe(EventFilter()))) == list(range(51, RING + 51))
        assert ids(await read(broker.subscribe(EventFilter(), after=RING + 48))) == [RING + 49, RING + 50]
        assert len(await read(broker.subscribe(EventFilter(), after=10_000))) == RING

    asyncio.run(run())


def test_filters_are_combined() -> None:
    """queue, worker and task: all that are given must match."""

    async def run() -> None:
        broker = EventBroker()
        subscribers = [
            broker.subscribe(wanted)
            for wanted in (
                EventFilter(queue="a"),
                EventFilter(task_id=2),
                EventFilter(queue="b", task_id=1),
                EventFilter(worker_id="w"),
            )
        ]
        publish(broker, 1, "a")
        publish(broker, 2, "b")
        publish(broker, 3, "b")
        publish(broker, 1, "b")
        assert [ids(await read(subscriber)) for subscriber in subscribers] == [[1], [2], [1], [1, 2, 3, 1]]

    asyncio.run(run())


def test_events_slow_subscriber_loses_events_and_gets_a_gap() -> None:
    """Its queue is bounded, the newest events stay, a gap tells how many are missing; others are not delayed."""

    async def run() -> None:
        broker = EventBroker()
        slow, quick = broker.subscribe(EventFilter()), broker.subscribe(EventFilter())
        for number in range(1000):
            publish(broker, number)
            assert ids(await read(quick)) == [number]
        gap, *rest = await read(slow)
        assert gap.keys() == rest[0].keys()
        assert (gap["_"], gap["type"], gap["metadata"]) == ("gap", "gap", {"missed": "744"})
        assert ids(rest) == list(range(744, 1000))
        assert broker.dropped == 744
        broker.unsubscribe(slow)
        assert len(broker) == 1

    asyncio.run(run())
