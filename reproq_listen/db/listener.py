"""The listening connection: notifications wake the claim loop, cancel messages hurry the heartbeat.

A notification is a hint, never a message: a lost one costs at most a poll. The listener is *verified* while a canary,
sent from another connection, has come back; a transaction pooler accepts LISTEN and delivers nothing, and a half-open
connection stays silent for ever.
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

from reproq_listen.db.connection import CALL_LIMIT, abort_socket, connect, with_deadline
from reproq_listen.db.errors import CallError, classify
from reproq_listen.db.worker_queries import Channels, subscribe
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import WakeFlag

SAFETY_POLL = 30.0  # seconds between looks while listening is verified
_CANARY_EVERY = 25.0  # seconds; less than the poll, so that each poll carries one
_CANARY_EVERY_UNVERIFIED = 2.0  # seconds
_ECHO_LIMIT = 3.0  # seconds for a canary to come back
_FIRST_RECONNECT_PAUSE = 0.1  # seconds, doubled after each failure, with jitter
_MAX_RECONNECT_PAUSE = 5.0  # seconds, while the server refuses us
_MAX_RECONNECT_PAUSE_DOWN = 60.0  # seconds, while LISTEN is accepted and nothing is heard


class ControlMessage(Struct, frozen=True):
    """What comes on the control channel. Anybody may NOTIFY, so it is a hint to ask the database, no more."""

    op: str = ""
    id: int | str | None = None
    queue: str | None = None


class Listener:
    """Owns the listening connection. LISTEN that fails or is deaf means polling, never the end of the worker."""

    def __init__(
        self,
        conninfo: str,
        queues: Collection[str],
        wake_flag: WakeFlag,
        on_cancel: Callable[[int], None],
        log: Log,
        on_schedule: Callable[[], None] = lambda: None,
        schema: str | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._queues = frozenset(queues)
        self._schema = schema
        self._wake = wake_flag
        self._on_cancel = on_cancel
        self._on_schedule = on_schedule
        self._log = log.bind(connection="listen")
        self._connection: AsyncConnection | None = None
        self._canary: str | None = None  # on its way
        self._canary_sent = float("-inf")
        self._failures = 0
        self._listener_down = False
        self.verified = False
        self.tried = asyncio.Event()  # LISTEN was confirmed, or has failed once

    async def run(self) -> None:
        """Listen until cancelled, reconnecting as often as it takes."""
        while True:
            try:
                await self._listen()
            except CallError as error:
                self._lost(error)
            await asyncio.sleep(self._pause())

    def canary_is_due(self) -> bool:
        """Whether the listener wants to be tested now."""
        since = asyncio.get_running_loop().time() - self._canary_sent
        every = _CANARY_EVERY if self.verified else _CANARY_EVERY_UNVERIFIED
        return self._connection is not None and self._canary is None and since >= every

    def canary(self) -> str | None:
        """Give the text to send on the control channel now, or None if none is due."""
        if not self.canary_is_due():
            return None
        self._canary = uuid4().hex
        self._canary_sent = asyncio.get_running_loop().time()
        asyncio.get_running_loop().call_later(_ECHO_LIMIT, self._judge, self._canary)
        return msgspec.json.encode(ControlMessage(op="canary", id=self._canary)).decode()

    def canary_not_sent(self) -> None:
        """The call that carried the canary failed: its silence says nothing about the listener."""
        self._canary = None

    async def _listen(self) -> None:
        connection = await connect(self._conninfo)
        try:
            channels = await with_deadline(connection, subscribe(connection, self._schema), CALL_LIMIT)
            # Only now may anybody look: what is committed after this is heard, what was before is seen.
            self._connection = connection
            self._canary_sent = float("-inf")
            self.tried.set()
            self._wake.notify()
            self._on_schedule()
            async for notify in connection.notifies():
                self._receive(notify, channels)
        except psycopg.Error as error:
            raise classify(error) from None
        finally:
            self._connection = None
            abort_socket(connection)
            await connection.close()

    def _receive(self, notify: Notify, channels: Channels) -> None:
        self._log.debug(Event.NOTIFIED, channel=notify.channel)
        if notify.channel == channels.ready:
            if not notify.payload or notify.payload in self._queues:
                self._wake.notify()
        elif notify.channel == channels.control:
            with contextlib.suppress(msgspec.MsgspecError):  # anybody may send anything
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
                self._wake.notify()
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
            self._log.info(Event.LISTEN_VERIFIED)

    def _judge(self, nonce: str) -> None:
        """The time for this canary is over. If it is still on its way, the connection is deaf: take a new one."""
        if nonce != self._canary:
            return
        if not self._listener_down:
            self._log.warning(
                Event.LISTENER_DOWN,
                cure="let --listen-dsn reach the same database without a transaction pooler",
            )
        self._listener_down = True
        self.verified = False
        self._canary = None
        self._wake.notify()  # from now on poll
        if self._connection is not None:
            abort_socket(self._connection)

    def _lost(self, error: CallError) -> None:
        if self.verified or not self.tried.is_set():  # once, not at every retry
            self._log.warning(Event.LISTEN_FAILED, reason=str(error), sqlstate=error.sqlstate)
        self.verified = False
        self._canary = None
        self.tried.set()
        self._wake.notify()

    def _pause(self) -> float:
        most = _MAX_RECONNECT_PAUSE_DOWN if self._listener_down else _MAX_RECONNECT_PAUSE
        most = min(_FIRST_RECONNECT_PAUSE * float(2**self._failures), most)
        self._failures = min(self._failures + 1, 30)
        return most * random.uniform(0.5, 1.0)
