"""What /readyz knows of the worker's own parts, over a day that passes at once."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from reproq_listen.http.probes import WorkerHealth
from reproq_listen.logs.event_log import Event


class Day:
    """A clock, and the health of a worker under it."""

    def __init__(self, *, poll_max: float = 5) -> None:
        self.now = 1000.0
        lease, heartbeat = timedelta(seconds=300), timedelta(seconds=60)
        self.health = WorkerHealth(heartbeat, lease, timedelta(seconds=poll_max), lambda: self.now)

    def happens(self, event: Event, **fields: object) -> None:
        self.health.tap(event, logging.DEBUG, fields)

    def all_is_well(self) -> None:
        self.happens(Event.CLAIM_LOOP)
        self.happens(Event.DATABASE_CALLED, operation="heartbeat", ok=True)
        self.happens(Event.LISTEN_VERIFIED)

    def failing(self) -> set[str]:
        return set(self.health.failures())


def test_a_new_worker_is_not_ready() -> None:
    """Nothing gave a sign of life yet, and each part is named with that."""
    day = Day()
    assert day.failing() == {"claim_loop", "listener", "heartbeat"}
    assert day.health.failures()["claim_loop"] == "no sign of life yet"
    day.all_is_well()
    assert day.failing() == set()


def test_a_claim_loop_that_does_not_turn_is_named() -> None:
    """Its longest pause is 30 s: it is given 45."""
    day = Day()
    day.all_is_well()
    day.now += 44
    assert day.failing() == set()
    day.now += 2
    assert day.health.failures() == {"claim_loop": "no sign of life for 46 s"}
    day.happens(Event.CLAIM_LOOP)
    assert day.failing() == set()


def test_a_claim_loop_may_pause_as_long_as_it_was_told() -> None:
    """A worker that polls every two minutes is not stuck in between."""
    day = Day(poll_max=120)
    day.all_is_well()
    day.happens(Event.LISTENER_DOWN)
    day.now += 124
    assert day.failing() == {"listener"}
    day.now += 12
    assert day.failing() == {"listener", "claim_loop", "heartbeat"}


def test_a_heartbeat_that_fails_is_named() -> None:
    """Two in a row may be missed; only one that succeeded counts."""
    day = Day()
    day.all_is_well()
    day.now += 126
    day.happens(Event.CLAIM_LOOP)
    day.happens(Event.DATABASE_CALLED, operation="heartbeat", ok=False)
    day.happens(Event.DATABASE_CALLED, operation="claim", ok=True)
    assert day.failing() == {"heartbeat"}
    day.happens(Event.DATABASE_CALLED, operation="heartbeat", ok=True)
    assert day.failing() == set()


@pytest.mark.parametrize("event", [Event.LISTENER_DOWN, Event.LISTEN_FAILED])
def test_a_listener_that_does_not_hear_is_named(event: Event) -> None:
    """Deaf or cut off, until it is verified again."""
    day = Day()
    day.all_is_well()
    day.happens(event)
    assert day.failing() == {"listener"}
    day.happens(Event.LISTEN_VERIFIED)
    assert day.failing() == set()


def test_who_drains_does_not_claim() -> None:
    """Then the claim loop has ended and is not named; a heartbeat that fails still is."""
    day = Day()
    day.all_is_well()
    day.happens(Event.STOP_ASKED)
    day.now += 100
    assert day.failing() == {"draining"}
    day.now += 100
    assert day.failing() == {"draining", "heartbeat"}
