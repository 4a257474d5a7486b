"""The HTTP pages of a worker on a real socket and a real database, in a thread of the test."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

from reproq_listen.config.settings import HttpSettings, worker_settings
from reproq_listen.http.limits import HttpLimits
from reproq_listen.http.server import HttpServer
from reproq_listen.logs.event_log import Event, Log
from tests.support.database import Database

PLAIN = HttpSettings(
    host="127.0.0.1",
    port=0,
    auth_token=None,
    allow=(),
    tls_cert=None,
    tls_key=None,
    tls_client_ca=None,
    auth_limit=30,
    auth_window=timedelta(minutes=1),
    auth_max_entries=1000,
)


LIMITS = HttpLimits()


class Answer(NamedTuple):
    """One response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Pages:
    """A server that listens while its `with` block runs."""

    def __init__(self, database: Database, settings: HttpSettings = PLAIN, limits: HttpLimits = LIMITS) -> None:
        self._database = database
        self._settings = settings
        self._limits = limits
        self._started: threading.Event = threading.Event()
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.port = 0
        self.logged: list[tuple[Event, dict[str, object]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        if self._problem is not None:
            self._thread.join()
            raise self._problem
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Close the server; leaving the `with` block does this as well."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        log = Log(logging.getLogger("nowhere"), {}, (self._note,))
        worker = worker_settings({"--dsn": self._database.dsn}, {})
        try:
            server = HttpServer(self._settings, worker, self._database.dsn, [], log, self._limits)
            await server.start()
        except Exception as error:  # noqa: BLE001 - handed to the test
            self._problem = error
            self._started.set()
            return
        (self.port,) = (int(str(fields["port"])) for event, fields in self.logged if event is Event.HTTP_STARTED)
        self._server = server
        self._started.set()
        await self._stop.wait()
        await server.close()

    def _note(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        self.logged.append((event, dict(fields)))

    def happens(self, event: Event, **fields: object) -> None:
        """Pass an event to the server, as a worker's log does."""
        self._loop.call_soon_threadsafe(self._server.tap, event, logging.INFO, fields)

    def connect(self, *, tls: ssl.SSLContext | None = None) -> socket.socket:
        """A raw connection; the caller closes it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return tls.wrap_socket(connection, server_hostname="localhost") if tls else connection

    def raw(self, request: bytes, *, tls: ssl.SSLContext | None = None) -> bytes:
        """Send bytes on a connection of their own and give all that comes back until it closes."""
        with self.connect(tls=tls) as connection:
            connection.sendall(request)
            return read_all(connection)

    def get(self, path: str, *, method: str = "GET", tls: ssl.SSLContext | None = None, **headers: str) -> Answer:
        """One request in the usual form."""
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n"
        return parse(self.raw(request.encode(), tls=tls))


def read_all(connection: socket.socket) -> bytes:
    """Everything until the peer closes; a reset counts as closing."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def parse(response: bytes) -> Answer:
    """One response with a Content-Length or until the end."""
    head, _, body = response.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
    assert match, response[:200]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(match[1]), headers, body)


def metric(page: bytes, name: str, **labels: str) -> float | None:
    """The value of one series on a metrics page."""
    for line in page.decode().splitlines():
        found = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', found[2] or "")) == labels:
            return float(found[3])
    return None


def settings(**changes: Any) -> HttpSettings:
    """The plain settings with these changes."""
    return HttpSettings(**{**{name: getattr(PLAIN, name) for name in PLAIN.__struct_fields__}, **changes})


def own_address() -> str | None:
    """An address of this machine that is not loopback, if it has one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address
