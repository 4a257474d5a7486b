"""Connections that cannot be used against us: few, with deadlines for whoever is slow to ask or to read."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from reproq_listen.http.access import peer_address

MAX_CONNECTIONS = 512
KEPT_FOR_LOOPBACK = 32
"""Connections beyond the most that only this machine may open: a flood from elsewhere must not fail a health check."""
HEAD_BYTES = 16 << 10  # of a request's line and headers
_ASK_LIMIT = 10.0  # seconds for a request's head to arrive whole
_READ_LIMIT = 30.0  # seconds for a peer to take what we have for it


class BoundedListener(socket.socket):
    """A listening socket that drops whoever is one too many, before TLS: a handshake takes a place like a request."""

    def __init__(self, family: socket.AddressFamily) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._taken: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """Take a connection. Raises ConnectionAbortedError, which asyncio passes over, when there are too many."""
        connection, address = super().accept()
        peer = peer_address(address[0])
        most = MAX_CONNECTIONS + (KEPT_FOR_LOOPBACK if peer is not None and peer.is_loopback else 0)
        if len(self._taken) >= most:
            self._taken = [taken for taken in self._taken if taken.fileno() != -1]
        if len(self._taken) >= most:
            connection.close()
            raise ConnectionAbortedError
        self._taken.append(connection)
        return connection, address


class BoundedProtocol(H11Protocol):
    """One connection."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self._asking: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking = self.loop.call_later(_ASK_LIMIT, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._asked()
        self._read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Between two requests the keep-alive timer watches; from the first byte of the next, ours."""
        before = self._current()
        is_idle = before is not None and before.response_complete
        # In pieces: a head is measured only while it is incomplete.
        for start in range(0, len(data), HEAD_BYTES):
            if not self.transport.is_closing():
                super().data_received(data[start : start + HEAD_BYTES])
        if self._current() is not before:
            self._asked()
        elif is_idle and self._asking is None and not self.transport.is_closing():
            self._asking = self.loop.call_later(_ASK_LIMIT, self.transport.abort)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A peer that has asked and says no more still gets its answer; who listens to events has gone."""
        cycle = self._current()
        is_answering = cycle is not None and not cycle.response_complete
        if not is_answering or self.scheme == "https" or self.scope["path"] == "/events":
            return False
        self.cycle.keep_alive = False
        return True

    def _current(self) -> RequestResponseCycle | None:
        """The request being answered, or the last one; None before the first."""
        return self.cycle

    def _reset(self) -> None:
        """Drop the connection and what waits for its peer in the kernel, too."""
        handle = self.transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _asked(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _read(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reading is None:
            self._reading = self.loop.call_later(_READ_LIMIT, self._reset)

    def resume_writing(self) -> None:
        self._read()
        super().resume_writing()
