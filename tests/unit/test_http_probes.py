"""The state of the worker's parts in /readyz, under a clock that the test moves."""

from __future__ import annotations

import logging

import pytest

from reproq_listen.config.settings import worker_settings
from reproq_listen.http.probes import WorkerHealth
from reproq_listen.logs.event_log import Event


class Clock:
    """A clock, and the health of a worker under it."""

    def __init__(self, *, poll_max: int = 5) -> None:
        self.now = 1000.0
        worker = worker_settings({"--dsn": "postgresql://h/d", "--poll-max-backoff": f"{poll_max}s"}, {})
        self.health = WorkerHealth(worker, lambda: self.now)

    def happens(self, event: Event, **fields: object) -> None:
        self.health.tap(event, logging.DEBUG, fields)

    def all_is_well(self) -> None:
        self.happens(Event.CLAIM_LOOP)
        self.happens(Event.DATABASE_CALLED, operation="heartbeat", ok=True)
        self.happens(Event.LISTEN_VERIFIED)

    def failing(self) -> set[str]:
        return set(self.health.failures())


def test_probes_new_worker_is_not_ready() -> None:
    """No part was active yet, and each is named."""
    clock = Clock()
    assert clock.failing() == {"claim_loop", "listener", "heartbeat"}
    assert clock.health.failures()["claim_loop"] == "not active yet"
    clock.all_is_well()
    assert clock.failing() == set()


def test_probes_claim_loop_that_does_not_turn_is_named() -> None:
    """Its longest pause is 30 s; after 45 s it fails."""
    clock = Clock()
    clock.all_is_well()
    clock.now += 44
    assert clock.failing() == set()
    clock.now += 2
    assert clock.health.failures() == {"claim_loop": "not active for 46 s"}
    clock.happens(Event.CLAIM_LOOP)
    assert clock.failing() == set()


def test_probes_claim_loop_may_pause_for_poll_max_backoff() -> None:
    """A worker that polls every two minutes is not stuck in between."""
    clock = Clock(poll_max=120)
    clock.all_is_well()
    clock.happens(Event.LISTENER_DOWN)
    clock.now += 124
    assert clock.failing() == {"listener"}
    clock.now += 12
    assert clock.failing() == {"listener", "claim_loop", "heartbeat"}


def test_probes_heartbeat_that_fails_is_named() -> None:
    """Two in a row may be missed; only one that succeeded counts."""
    clock = Clock()
    clock.all_is_well()
    clock.now += 126
    clock.happens(Event.CLAIM_LOOP)
    clock.happens(Event.DATABASE_CALLED, operation="heartbeat", ok=False)
    clock.happens(Event.DATABASE_CALLED, operation="claim", ok=True)
    assert clock.failing() == {"heartbeat"}
    clock.happens(Event.DATABASE_CALLED, operation="heartbeat", ok=True)
    assert clock.failing() == set()


@pytest.mark.parametrize("event", [Event.LISTENER_DOWN, Event.LISTEN_FAILED])
def test_probes_listener_that_is_not_verified_is_named(event: Event) -> None:
    """No notification arrives or the connection is lost, until it is verified again."""
    clock = Clock()
    clock.all_is_well()
    clock.happens(event)
    assert clock.failing() == {"listener"}
    clock.happens(Event.LISTEN_VERIFIED)
    assert clock.failing() == set()


def test_probes_draining_worker_need_not_claim() -> None:
    """Then the claim loop has ended and is not named; a heartbeat that fails still is."""
    clock = Clock()
    clock.all_is_well()
    clock.happens(Event.STOP_ASKED)
    clock.now += 100
    assert clock.failing() == {"draining"}
    clock.now += 100
    assert clock.failing() == {"draining", "heartbeat"}


def test_probes_executor_that_cannot_start_processes_is_named_with_the_reason() -> None:
    """Until its pause is over."""
    clock = Clock()
    clock.all_is_well()
    clock.happens(Event.EXECUTOR_PAUSED, message="too many open files", retry_in=0.1)
    assert clock.health.failures() == {"executor": "no tasks are claimed: too many open files"}
    clock.happens(Event.EXECUTOR_RESUMED)
    assert clock.failing() == set()
