"""The listener: when it takes itself for down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from reproq_listen.db import listener
from reproq_listen.db.listener import Listener
from reproq_listen.logs.event_log import Event, Log

LIMIT = 0.1


class Down:
    """A log that knows whether the listener has called itself down."""

    def __init__(self) -> None:
        self.seen = False
        self.log = Log(logging.getLogger("nowhere"), {}, (self._tap,))

    def _tap(self, event: Event, *_: object) -> None:
        self.seen = self.seen or event is Event.LISTENER_DOWN


def run(monkeypatch: pytest.MonkeyPatch, work: Coroutine[Any, Any, None]) -> None:
    monkeypatch.setattr(listener, "_ECHO_LIMIT", LIMIT)
    monkeypatch.setattr(listener, "abort_socket", lambda _: None)
    asyncio.run(work)


def connected(down: Down) -> Listener:
    made = Listener("host=h", down.log)
    made._connection = object()  # type: ignore[assignment]
    return made


def test_listener_time_until_the_canary_is_sent_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call that sends it may wait for another one, or for a slow server: the echo is due only after its answer."""
    down = Down()

    async def work() -> None:
        healthy = connected(down)
        assert healthy.canary() is not None
        await asyncio.sleep(3 * LIMIT)
        assert not down.seen
        healthy.canary_sent()
        await asyncio.sleep(3 * LIMIT)
        assert down.seen

    run(monkeypatch, work())


def test_listener_canary_that_came_back_before_the_answer_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that could not be sent."""
    down = Down()

    async def work() -> None:
        for outcome in (Listener._verify, Listener.canary_not_sent):
            healthy = connected(down)
            assert healthy.canary() is not None
            outcome(healthy)
            healthy.canary_sent()
            await asyncio.sleep(3 * LIMIT)
            assert not down.seen

    run(monkeypatch, work())
