"""The state behind the probes: when each part of the worker was last active, and whether the database answers.

/livez checks nothing: it answers while the event loop runs. /healthz asks the database. /readyz names what fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.database import Database
from reproq_listen.db.errors import CallError
from reproq_listen.db.listener import SAFETY_POLL
from reproq_listen.errors import ContractError
from reproq_listen.logs.event_log import Event

_LOOP_SLACK = 15.0
"""Seconds that the claim loop may take beyond its longest pause, while the database answers."""
_DATABASE_LIMIT = 2.0  # seconds to wait for the database in one request
_ANSWER_HOLDS = 2.0  # seconds that one answer of the database serves all requests


class WorkerHealth:
    """Taps the log for activity of the worker's parts."""

    def __init__(self, worker: WorkerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._loop_limit = max(SAFETY_POLL, worker.poll_max_backoff.total_seconds()) + _LOOP_SLACK
        self._heartbeat_limit = 2 * min(worker.heartbeat, worker.lease / 3).total_seconds() + 5
        self._loop_at = float("-inf")
        self._heartbeat_at = float("-inf")
        self.is_listener_verified = False
        self._is_draining = False
        self._executor_problem: str | None = None

    def tap(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        match event:
            case Event.CLAIM_LOOP:
                self._loop_at = self._clock()
            case Event.DATABASE_CALLED if fields["ok"] and fields["operation"] == "heartbeat":
                self._heartbeat_at = self._clock()
            case Event.LISTEN_VERIFIED:
                self.is_listener_verified = True
            case Event.LISTENER_DOWN | Event.LISTEN_FAILED:
                self.is_listener_verified = False
            case Event.EXECUTOR_PAUSED:
                self._executor_problem = str(fields["message"])
            case Event.EXECUTOR_RESUMED:
                self._executor_problem = None
            case Event.STOP_ASKED:
                self._is_draining = True
            case _:
                pass

    def failures(self) -> dict[str, str]:
        """The parts of the worker that fail, with the reason."""
        found = {}
        # A worker that drains does not claim.
        if not self._is_draining and (since := self._clock() - self._loop_at) > self._loop_limit:
            found["claim_loop"] = _silent(since)
        if not self.is_listener_verified:
            found["listener"] = "notifications are not verified to arrive, so the worker polls; see --listen-dsn"
        if (since := self._clock() - self._heartbeat_at) > self._heartbeat_limit:
            found["heartbeat"] = _silent(since)
        if self._executor_problem is not None:
            found["executor"] = f"no tasks are claimed: {self._executor_problem}"
        if self._is_draining:
            found["draining"] = "the worker was told to stop"
        return found


def _silent(seconds: float) -> str:
    return "not active yet" if seconds == float("inf") else f"not active for {seconds:.0f} s"


class DatabaseProbe:
    """Asks the database whether it answers and which contract it serves. Each answer serves all requests of 2 s."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking: asyncio.Task[dict[str, str]] | None = None
        self._asked_at = float("-inf")

    async def failures(self) -> dict[str, str]:
        """Empty, or `database` or `contract` with the reason."""
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
