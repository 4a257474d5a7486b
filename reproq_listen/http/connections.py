"""Connections that clients cannot use against the worker: limited in number, each with a deadline.

uvicorn has no option for this: `limit_concurrency` answers 503 and keeps accepting, and neither a request that arrives
slowly nor a client that does not read ever times out. So the listening socket refuses connections beyond the limit, and
each open connection has one timer, which `Deadlines` sets as requests come and go. When it fires, the connection is
reset.
Nothing here knows uvicorn: a connection is a socket, found by its client's address in the ASGI scope.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reproq_listen.http.access import is_loopback
from reproq_listen.http.limits import HttpLimits

Client = tuple[str, int]
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing drops unsent data


class Connections:
    """The open connections by client, and their deadlines. Belongs to one event loop."""

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._sockets: dict[Client, socket.socket] = {}
        self._timers: dict[Client, asyncio.TimerHandle] = {}

    def admit(self, connection: socket.socket, client: Client) -> bool:
        """Whether there is room for this connection; if so, its first request has a deadline."""
        limit = self._limits.connections
        if is_loopback(client[0]):
            limit += self._limits.connections_for_loopback
        if len(self._sockets) >= limit:
            self._sockets = {known: taken for known, taken in self._sockets.items() if taken.fileno() != -1}
        if len(self._sockets) >= limit:
            return False
        self._sockets[client] = connection
        self.set_deadline(client, self._limits.request_seconds)
        return True

    def set_deadline(self, client: Client, seconds: float) -> None:
        """Drop the connection after `seconds`, unless another deadline is set or this one is cleared."""
        self.clear_deadline(client)
        if client in self._sockets:
            self._timers[client] = asyncio.get_running_loop().call_later(seconds, self.drop, client)

    def clear_deadline(self, client: Client) -> None:
        timer = self._timers.pop(client, None)
        if timer is not None:
            timer.cancel()

    def drop(self, client: Client) -> None:
        """Reset a connection, with the data that waits in the kernel for its client. A closed one is forgotten."""
        self.clear_deadline(client)
        connection = self._sockets.pop(client, None)
        if connection is not None and connection.fileno() != -1:
            with contextlib.suppress(OSError):  # the client was quicker
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for client in list(self._sockets):
            self.drop(client)


class LimitedListener(socket.socket):
    """A listening socket that closes connections beyond the limit, before TLS: a handshake counts as a connection."""

    def __init__(self, family: socket.AddressFamily, connections: Connections) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Take a connection. Raises ConnectionAbortedError, which asyncio ignores, when there is no room."""
        connection, address = super().accept()
        if not self._connections.admit(connection, address[:2]):
            connection.close()
            raise ConnectionAbortedError
        return connection, address


class Deadlines:
    """ASGI middleware: a client has `answer_seconds` to take each message, and then to send its next request."""

    def __init__(self, app: ASGIApp, connections: Connections, limits: HttpLimits) -> None:
        self._app = app
        self._connections = connections
        self._seconds = limits.answer_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client: Client = tuple(scope["client"])

        async def send_in_time(message: Message) -> None:
            self._connections.set_deadline(client, self._seconds)
            try:
                await send(message)
            finally:
                self._connections.clear_deadline(client)

        self._connections.clear_deadline(client)
        try:
            await self._app(scope, receive, send_in_time)
        finally:
            self._connections.set_deadline(client, self._seconds)
