"""The listening connection: notifications wake the claim loop, cancel messages cause an early heartbeat.

A notification is a hint, never a message: a lost one costs at most a poll. The listener is *verified* when a canary, a
notification sent from another connection, has come back. A half-open connection stays silent for ever: it is found
because its canary does not come back. A transaction pooler accepts LISTEN and delivers to the next user of the session:
there the process polls, unless the address was given for LISTEN. Only a verified listener tells producers that it waits
(`Waiting`): behind a pooler the lock that says so would stay with a session of the pooler.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from uuid import uuid4

import msgspec
import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, Notify

from reproq_listen.db.connection import CALL_LIMIT, abort_socket, connect, is_direct, with_deadline
from reproq_listen.db.errors import CallError, CallRefused, classify
from reproq_listen.db.waiting import Waiting
from reproq_listen.db.worker_queries import Channels, subscribe
from reproq_listen.logs.event_log import Event, Log

SAFETY_POLL = 30.0  # seconds between polls while the listener is verified
_CANARY_INTERVAL = 25.0  # seconds; less than SAFETY_POLL, so that each poll sends one
_CANARY_INTERVAL_UNVERIFIED = 2.0  # seconds
_ECHO_LIMIT = 3.0  # seconds for a canary to come back
_FIRST_RECONNECT_PAUSE = 0.1  # seconds, doubled after each failure, with jitter
_MAX_RECONNECT_PAUSE = 5.0  # seconds, while the server refuses connections
_MAX_RECONNECT_PAUSE_DOWN = 60.0  # seconds, while LISTEN is accepted and nothing arrives


class ControlMessage(Struct, frozen=True):
    """A message on the control channel. Any role may NOTIFY, so it is only a hint to ask the database."""

    op: str = ""
    id: int | str | None = None
    queue: str | None = None


def _ignore(*_: object) -> None:
    """For messages that a listener has no use for."""


class Listener:
    """Owns the listening connection. When LISTEN fails or delivers nothing the process polls; it never ends."""

    def __init__(
        self,
        conninfo: str,
        log: Log,
        *,
        schema: str | None = None,
        is_for_listen: bool = False,
        queues: Collection[str] = (),
        on_ready: Callable[[], None] = _ignore,
        on_cancel: Callable[[int], None] = _ignore,
        on_schedule: Callable[[], None] = _ignore,
    ) -> None:
        """`is_for_listen`: the user named this address for LISTEN; else a pooler there is left alone.
        `on_ready`: tasks of `queues` may be claimable. `on_cancel`: a task, by id, may have to be cancelled.
        `on_schedule`: a schedule may have changed. All three may be called without need."""
        self._conninfo = conninfo
        self._schema = schema
        self._is_for_listen = is_for_listen
        self._queues = frozenset(queues)
        self._on_ready = on_ready
        self._on_cancel = on_cancel
        self._on_schedule = on_schedule
        self._log = log.bind(connection="listen")
        self._connection: AsyncConnection | None = None
        self._canary: str | None = None  # sent, and not back yet
        self._canary_sent = float("-inf")
        self._failures = 0
        self._listener_down = False
        self._wanted = bool(queues)
        self._receiving: asyncio.Timeout | None = None  # while only notifications are waited for
        self.verified = False
        self.tried = asyncio.Event()  # LISTEN has succeeded or failed once

    async def run(self) -> None:
        """Listen until cancelled; reconnect after every failure."""
        while True:
            try:
                await self._listen()
            except CallError as error:
                self._lost(error)
            await asyncio.sleep(self._pause())

    def want_notifications(self) -> None:
        """Producers have to notify. Claim when `on_ready` is called; from the last of these calls on they all do."""
        self._wanted = True
        self._interrupt()

    def want_no_notifications(self) -> None:
        """Producers need not notify: the worker will claim in any case."""
        self._wanted = False
        self._interrupt()

    def canary_is_due(self) -> bool:
        """Whether it is time to test the listener."""
        since = asyncio.get_running_loop().time() - self._canary_sent
        interval = _CANARY_INTERVAL if self.verified else _CANARY_INTERVAL_UNVERIFIED
        return self._connection is not None and self._canary is None and since >= interval

    def canary(self) -> str | None:
        """The text to send on the control channel now; None if no canary is due.

        Call `canary_sent` or `canary_not_sent` after the call with it.
        """
        if not self.canary_is_due():
            return None
        self._canary = uuid4().hex
        self._canary_sent = asyncio.get_running_loop().time()
        return msgspec.json.encode(ControlMessage(op="canary", id=self._canary)).decode()

    def canary_sent(self) -> None:
        """The call with the canary was answered, after whatever time: its echo is due soon."""
        if self._canary is not None:
            asyncio.get_running_loop().call_later(_ECHO_LIMIT, self._check_echo, self._canary)

    def canary_not_sent(self) -> None:
        """The call that should send the canary failed: its absence says nothing about the listener."""
        self._canary = None

    async def _listen(self) -> None:
        connection = await connect(self._conninfo)
        try:
            if not (self._is_for_listen or await with_deadline(connection, is_direct(connection), CALL_LIMIT)):
                self._warn_down()
                raise CallRefused("a pooler is between this process and the server")
            channels = await with_deadline(connection, subscribe(connection, self._schema), CALL_LIMIT)
            # Claim only now: what is sent after LISTEN arrives, what was committed before it is found by the claim.
            self._connection = connection
            self._canary_sent = float("-inf")
            self.tried.set()
            self._on_ready()
            self._on_schedule()
            waiting = Waiting(connection, self._schema, self._queues)
            while True:
                await with_deadline(connection, self._agree(waiting), CALL_LIMIT)
                await self._receive_all(connection, channels, waiting)
        except psycopg.Error as error:
            raise classify(error) from None
        finally:
            self._connection = None
            abort_socket(connection)
            await connection.close()

    async def _agree(self, waiting: Waiting) -> None:
        """Bring producers to what is wanted, and have the worker claim after each step of the way."""
        if waiting.is_on != (self._wanted and self.verified):
            if waiting.is_on:
                await waiting.end()
            else:
                await waiting.begin()
                self._on_ready()
        elif waiting.pause() == 0 and await waiting.look():
            self._on_ready()

    async def _receive_all(self, connection: AsyncConnection, channels: Channels, waiting: Waiting) -> None:
        """Receive notifications until something else is to be done on this connection."""
        if waiting.is_on != (self._wanted and self.verified):
            return
        try:
            async with asyncio.timeout(waiting.pause()) as self._receiving:
                async for notify in connection.notifies():
                    self._receive(notify, channels)
        except TimeoutError:
            pass
        finally:
            self._receiving = None

    def _interrupt(self) -> None:
        """End `_receive_all` now, unless it is about to end."""
        if self._receiving is not None and not self._receiving.expired():
            self._receiving.reschedule(asyncio.get_running_loop().time())

    def _receive(self, notify: Notify, channels: Channels) -> None:
        self._log.debug(Event.NOTIFIED, channel=notify.channel)
        if notify.channel == channels.ready:
            if not notify.payload or notify.payload in self._queues:
                self._on_ready()
        elif notify.channel == channels.control:
            with contextlib.suppress(msgspec.MsgspecError):  # any role may send any text
                self._dispatch(msgspec.json.decode(notify.payload, type=ControlMessage))

    def _dispatch(self, message: ControlMessage) -> None:
        match message:
            case ControlMessage(op="canary", id=str(nonce)) if nonce == self._canary:
                self._verify()
            case ControlMessage(op="cancel", id=int(result_id)):
                self._on_cancel(result_id)
            case ControlMessage(op="schedule"):
                self._on_schedule()
            case ControlMessage(op="resume", queue=queue) if queue is None or queue in self._queues:
                self._on_ready()
            case _:
                pass  # another worker's canary, or a message of a later version

    def _verify(self) -> None:
        self._canary = None
        seconds = asyncio.get_running_loop().time() - self._canary_sent
        self._log.debug(Event.LISTEN_ROUND_TRIP, seconds=seconds)
        self._failures = 0
        self._listener_down = False
        if not self.verified:
            self.verified = True
            self._interrupt()
            self._log.info(Event.LISTEN_VERIFIED)

    def _check_echo(self, nonce: str) -> None:
        """The time for this canary is over. If it has not come back, nothing arrives here: reconnect."""
        if nonce != self._canary:
            return
        self._warn_down()
        self.verified = False
        self._canary = None
        self._on_ready()  # poll from now on
        if self._connection is not None:
            abort_socket(self._connection)

    def _warn_down(self) -> None:
        if not self._listener_down:
            self._log.warning(
                Event.LISTENER_DOWN,
                remedy="let --listen-dsn reach the same database without a transaction pooler",
            )
        self._listener_down = True

    def _lost(self, error: CallError) -> None:
        if not self._listener_down and (self.verified or not self.tried.is_set()):  # once, not at every retry
            self._log.warning(Event.LISTEN_FAILED, reason=str(error), sqlstate=error.sqlstate)
        self.verified = False
        self._canary = None
        self.tried.set()
        self._on_ready()

    def _pause(self) -> float:
        most = _MAX_RECONNECT_PAUSE_DOWN if self._listener_down else _MAX_RECONNECT_PAUSE
        most = min(_FIRST_RECONNECT_PAUSE * float(2**self._failures), most)
        self._failures = min(self._failures + 1, 30)
        return most * random.uniform(0.5, 1.0)
