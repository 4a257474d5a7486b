"""A transaction pooler, as PgBouncer with `pool_mode = transaction`: a session of the server serves one transaction.

It answers the start of a session itself, hands out process ids of its own, and takes LISTEN like any statement.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import socket
import struct
import threading
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.support.proxy import close_socket, read_exactly, read_message

_PARAMETERS = ("server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "integer_datetimes")


class Pooler:
    """Serves any number of clients on `size` sessions of one server."""

    def __init__(self, dsn: str, size: int = 1) -> None:
        target = conninfo_to_dict(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        plain = {"host": "127.0.0.1", "port": self._listener.getsockname()[1], "sslmode": "disable"}
        self.dsn = make_conninfo("", **{**target, **plain, "gssencmode": "disable"})
        self._sessions = [psycopg.connect(dsn, autocommit=True) for _ in range(size)]
        self._parameters = {name: self._sessions[0].info.parameter_status(name) or "" for name in _PARAMETERS}
        self._free: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        self._sockets: list[socket.socket] = []
        for session in self._sessions:
            server = socket.socket(fileno=session.pgconn.socket)
            server.setblocking(True)
            self._free.put(server)
        self._pids = itertools.count(1)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for each in self._sockets:
            close_socket(each)
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get(timeout=1).detach()  # the session closes it
        for session in self._sessions:
            session.close()

    def listening(self) -> list[str]:
        """The channels that sessions of the pool listen on, whoever uses them next."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return [row[0] for row in connection.execute("select pg_listening_channels()")]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            read_exactly(client, struct.unpack("!i", read_exactly(client, 4))[0] - 4)
            client.sendall(self._greeting())
            while True:
                self._transaction(client)
        close_socket(client)

    def _greeting(self) -> bytes:
        """Welcome without a password, parameters of the server, a made-up process id, ready."""
        pairs = (name.encode() + b"\0" + value.encode() + b"\0" for name, value in self._parameters.items())
        parameters = b"".join(b"S" + struct.pack("!i", len(pair) + 4) + pair for pair in pairs)
        key = b"K" + struct.pack("!iii", 12, next(self._pids), 0)
        return b"R" + struct.pack("!ii", 8, 0) + parameters + key + b"Z" + struct.pack("!i", 5) + b"I"

    def _transaction(self, client: socket.socket) -> None:
        """Pass the statements of one transaction on to a free session, and its answers back."""
        kind, message = read_message(client)
        server = self._free.get()
        try:
            state = b"T"
            while state != b"I":
                if kind == b"X":
                    raise ConnectionResetError
                server.sendall(message)
                if kind in b"QS":
                    state = self._answer(server, client)
                if state != b"I":
                    kind, message = read_message(client)
        finally:
            self._free.put(server)

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket) -> bytes:
        while True:
            kind, message = read_message(server)
            client.sendall(message)
            if kind == b"Z":
                return message[-1:]
