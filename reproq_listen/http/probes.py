"""What the probes know: when the worker's parts last gave a sign of life, and what the database says now.

/livez asks nothing: it answers as long as the event loop turns. /healthz asks the database. /readyz names what fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from reproq_listen.db.errors import CallError
from reproq_listen.db.listener import SAFETY_POLL
from reproq_listen.db.worker_queries import Database
from reproq_listen.errors import ContractError
from reproq_listen.logs.event_log import Event

_LOOP_SLACK = 15.0
"""Seconds beyond the longest pause: the claim loop turns at least so often while the database answers."""
_DATABASE_LIMIT = 2.0  # seconds to wait for the database in one request
_ANSWER_HOLDS = 2.0  # seconds: however many ask, the database is asked so often at most


class WorkerHealth:
    """Taps the log for signs of life."""

    def __init__(
        self, heartbeat: timedelta, lease: timedelta, poll_max: timedelta, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`poll_max`: the longest pause of a claim loop that hears nothing."""
        self._clock = clock
        self._loop_limit = max(SAFETY_POLL, poll_max.total_seconds()) + _LOOP_SLACK
        seconds = min(heartbeat.total_seconds(), lease.total_seconds() / 3)
        self._heartbeat_limit = 2 * seconds + 5
        self._loop_at = float("-inf")
        self._heartbeat_at = float("-inf")
        self.is_listener_proven = False
        self._is_draining = False

    def tap(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        match event:
            case Event.CLAIM_LOOP:
                self._loop_at = self._clock()
            case Event.DATABASE_CALLED if fields["ok"] and fields["operation"] == "heartbeat":
                self._heartbeat_at = self._clock()
            case Event.LISTEN_VERIFIED:
                self.is_listener_proven = True
            case Event.LISTENER_DOWN | Event.LISTEN_FAILED:
                self.is_listener_proven = False
            case Event.STOP_ASKED:
                self._is_draining = True
            case _:
                pass

    def failures(self) -> dict[str, str]:
        """What is wrong with the worker itself: name and reason."""
        found = {}
        # Who drains does not claim any more, and is allowed to.
        if not self._is_draining and (since := self._clock() - self._loop_at) > self._loop_limit:
            found["claim_loop"] = _silent(since)
        if not self.is_listener_proven:
            found["listener"] = "notifications are not verified to arrive: polling; see --listen-dsn"
        if (since := self._clock() - self._heartbeat_at) > self._heartbeat_limit:
            found["heartbeat"] = _silent(since)
        if self._is_draining:
            found["draining"] = "the worker was told to stop"
        return found


def _silent(seconds: float) -> str:
    return "no sign of life yet" if seconds == float("inf") else f"no sign of life for {seconds:.0f} s"


class DatabaseProbe:
    """Asks the database whether it answers and which contract it serves. Bounded, and once for all who ask."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[dict[str, str]] | None = None
        self._asked_at = float("-inf")

    async def failures(self) -> dict[str, str]:
        """What is wrong: nothing, or `database` or `contract` and the reason."""
        now = asyncio.get_running_loop().time()
        is_done = self._asking is None or self._asking.done()
        if is_done and (self._asking is None or now - self._asked_at > _ANSWER_HOLDS):
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask())
        assert self._asking is not None
        try:
            async with asyncio.timeout(_DATABASE_LIMIT):
                return await asyncio.shield(self._asking)
        except TimeoutError:
            return {"database": f"no answer within {_DATABASE_LIMIT:g} s"}

    async def _ask(self) -> dict[str, str]:
        try:
            served = await self._database.contract()
        except CallError as error:
            return {"database": str(error)}
        except ContractError as error:
            return {"contract": str(error)}
        refusal = served.refusal()
        return {} if refusal is None else {"contract": refusal}

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
