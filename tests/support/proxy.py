"""A proxy that speaks just enough of PostgreSQL's protocol to lose notifications, cut replies and fall silent."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_NOTIFICATION = b"A"


class Proxy:
    """Stands between clients and a server. What it does to the traffic can be changed at any time."""

    def __init__(self, dsn: str, host: str = "127.0.0.1") -> None:
        """`host`: the address of this machine to listen at."""
        self._target = conninfo_to_dict(dsn)
        self._listener = socket.create_server((host, 0))
        port = self._listener.getsockname()[1]
        plain = {"host": host, "port": port, "sslmode": "disable", "gssencmode": "disable"}
        self.dsn = make_conninfo("", **{**self._target, **plain})
        self.drop_notifications = False
        self.silent = False  # takes everything, passes nothing
        self.cut_reply_to: bytes | None = None  # a statement that holds this is executed, its reply cut off
        self.cuts = 0
        self.statements: list[bytes] = []
        self.executed: list[bytes] = []  # as `statements`, and prepared ones each time
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for each in self._sockets:
            close_socket(each)

    def cut(self) -> None:
        """Cut all connections; new ones are taken."""
        cut, self._sockets = self._sockets, []
        for each in cut:
            close_socket(each)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = self._connect()
                except OSError:  # the server is away
                    close_socket(client)
                    continue
                self._sockets += [client, server]
                link = _Link(self, client, server)
                threading.Thread(target=link.forward, daemon=True).start()
                threading.Thread(target=link.back, daemon=True).start()

    def _connect(self) -> socket.socket:
        host = str(self._target.get("host") or "/tmp")
        port = int(self._target.get("port") or 5432)
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(f"{host}/.s.PGSQL.{port}")
        except OSError:
            server.close()
            raise
        return server


class _Link:
    """One client's connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._prepared: dict[bytes, bytes] = {}
        self._cut = False

    def forward(self) -> None:
        """Client to server; records statements."""
        with contextlib.suppress(OSError):
            first = read_exactly(self._client, 4)
            self._server.sendall(first + read_exactly(self._client, struct.unpack("!i", first)[0] - 4))
            while True:
                kind, message = read_message(self._client)
                if kind in b"PQ":
                    self._proxy.statements.append(message)
                statement = self._statement(kind, message)
                if kind in b"BQ":
                    self._proxy.executed.append(statement)
                needle = self._proxy.cut_reply_to
                self._cut = self._cut or (needle is not None and needle in statement)
                if not self._proxy.silent:
                    self._server.sendall(message)
        close_socket(self._server)

    def _statement(self, kind: bytes, message: bytes) -> bytes:
        """What a message has the server do, also by the name of a prepared statement."""
        if kind == b"P":
            self._prepared[message[5:].split(b"\0")[0]] = message
        if kind == b"B":
            return self._prepared.get(message[5:].split(b"\0")[1], b"")
        return message if kind in b"PQ" else b""

    def back(self) -> None:
        """Server to client, less what is to be lost."""
        with contextlib.suppress(OSError):
            while True:
                kind, message = read_message(self._server)
                if self._cut and kind == b"Z":  # the transaction has ended, and its reply is lost
                    self._proxy.cut_reply_to = None
                    self._proxy.cuts += 1
                    break
                lost = self._proxy.drop_notifications and kind == _NOTIFICATION
                if not (lost or self._cut or self._proxy.silent):
                    self._client.sendall(message)
        close_socket(self._client)


def read_message(source: socket.socket) -> tuple[bytes, bytes]:
    head = read_exactly(source, 5)
    return head[:1], head + read_exactly(source, struct.unpack("!i", head[1:])[0] - 4)


def read_exactly(source: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = source.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return data


def close_socket(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
