"""The feed of /events: what is told, to whom, and what happens to readers who do not read."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

from reproq_listen.http.event_stream import RING, TYPES, EventBroker, Filter, Reader
from reproq_listen.logs.event_log import Event, Log

CONTRACT_TYPES = {
    *("task_started", "task_success", "task_failed", "task_retry", "task_rejected", "task_invalid"),
    *("task_cancelled", "task_infra_error"),
}


def told(feed: EventBroker, number: int, queue: str = "q") -> None:
    feed.tap(Event.TASK_SUCCESS, logging.INFO, {"task_id": number, "queue": queue, "worker_id": "w", "attempt": 1})


async def read(reader: Reader) -> list[dict[str, Any]]:
    """All that waits for a reader."""
    text = (await asyncio.wait_for(reader.next(), 1)).decode()
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    return [{**json.loads(block["data"]), "_": block.get("event", block.get("id"))} for block in blocks]


def ids(events: list[dict[str, Any]]) -> list[int]:
    return [event["task_id"] for event in events]


def test_the_types_are_the_contracts() -> None:
    """Those events and no others leave the process."""
    assert {event.value for event in TYPES} == CONTRACT_TYPES


def test_an_event_has_the_fields_of_the_contract_and_no_payload() -> None:
    """ts, level, type, msg, queue, task_id, worker_id, metadata; what the task or its error says stays inside."""

    async def run() -> None:
        feed = EventBroker()
        log = Log(logging.getLogger("unheard"), {"worker_id": "w"}, (feed.tap,))
        reader = feed.subscribe(Filter())
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
        (event,) = await read(reader)
        assert event.pop("ts").endswith("Z")
        assert event == {
            "_": "1",
            "level": "warn",
            "type": "task_retry",
            "msg": "task 7 failed and will be tried again",
            "queue": "mail",
            "task_id": 7,
            "worker_id": "w",
            "metadata": {"attempt": 2, "kind": "app_error", "retry_in": 3.0},
        }

    asyncio.run(run())


def test_a_new_reader_gets_the_last_200() -> None:
    """The ring holds 200 events and forgets the oldest; Last-Event-ID skips what is known already."""

    async def run() -> None:
        feed = EventBroker()
        for number in range(1, RING + 51):
            told(feed, number)
        assert ids(await read(feed.subscribe(Filter()))) == list(range(51, RING + 51))
        assert ids(await read(feed.subscribe(Filter(), after=RING + 48))) == [RING + 49, RING + 50]
        assert len(await read(feed.subscribe(Filter(), after=10_000))) == RING

    asyncio.run(run())


def test_filters_are_combined() -> None:
    """queue, worker and task: all that are given must match."""

    async def run() -> None:
        feed = EventBroker()
        readers = [
            feed.subscribe(wanted)
            for wanted in (Filter(queue="a"), Filter(task_id=2), Filter(queue="b", task_id=1), Filter(worker_id="w"))
        ]
        told(feed, 1, "a")
        told(feed, 2, "b")
        told(feed, 3, "b")
        told(feed, 1, "b")
        assert [ids(await read(reader)) for reader in readers] == [[1], [2], [1], [1, 2, 3, 1]]

    asyncio.run(run())


def test_a_reader_that_does_not_read_loses_events_and_is_told() -> None:
    """Its queue is bounded, the newest events stay, and a gap says how many are missing; others are not held up."""

    async def run() -> None:
        feed = EventBroker()
        slow, quick = feed.subscribe(Filter()), feed.subscribe(Filter())
        for number in range(1000):
            told(feed, number)
            assert ids(await read(quick)) == [number]
        gap, *rest = await read(slow)
        assert gap == {"_": "gap", "missed": 744}
        assert ids(rest) == list(range(744, 1000))
        assert feed.dropped == 744
        feed.unsubscribe(slow)
        assert len(feed) == 1

    asyncio.run(run())
