"""The HTTP server of a worker: a socket, TLS if asked for, and everything behind it.

Only this package imports starlette, uvicorn and prometheus_client, and it is imported only when an address is given.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address

from uvicorn.config import Config
from uvicorn.server import ServerState

from reproq_listen.config.settings import HttpSettings
from reproq_listen.db.worker_queries import Database
from reproq_listen.errors import SettingError
from reproq_listen.http.access import FailedLogins, Token
from reproq_listen.http.app import Guard, Pages
from reproq_listen.http.connections import HEAD_BYTES, BoundedListener, BoundedProtocol
from reproq_listen.http.event_stream import EventBroker
from reproq_listen.http.fleet import Fleet
from reproq_listen.http.metrics import HasCalls, Metrics
from reproq_listen.http.probes import DatabaseProbe, WorkerHealth
from reproq_listen.logs.event_log import Event, Log

_KEEP_ALIVE = 65  # seconds a connection may rest between two requests
_HANDSHAKE_LIMIT = 10.0  # seconds
_CLOSE_LIMIT = 1.0  # seconds for answers under way
_BACKLOG = 256


class HttpServer:
    """Owns the listening socket and what hangs on it. Made before the worker's parts, so that `tap` misses nothing."""

    def __init__(
        self,
        settings: HttpSettings,
        concurrency: int,
        heartbeat: timedelta,
        lease: timedelta,
        poll_max: timedelta,
        database: Database,
        connections: Sequence[HasCalls],
        log: Log,
    ) -> None:
        """`database`: a connection of its own, closed by its owner. `connections`: those that metrics show.

        Raises SettingError for certificates that cannot be used.
        """
        self._settings = settings
        self._log = log
        self._tls = tls_context(settings)
        self._vitals = WorkerHealth(heartbeat, lease, poll_max)
        self._feed = EventBroker()
        self._probe = DatabaseProbe(database)
        self._fleet = Fleet(database, log)
        self._metrics = Metrics(concurrency, connections, self._fleet)
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    def tap(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        """Hear an event of the worker."""
        self._vitals.tap(event, level, fields)
        self._metrics.tap(event, level, fields)
        self._feed.tap(event, level, fields)

    async def start(self) -> None:
        """Listen. Raises SettingError if the address cannot be had."""
        settings = self._settings
        listening = open_socket(settings.host, settings.port)
        config = Config(
            self._guarded(),
            http=BoundedProtocol,
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        config.load()
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # a bad request is its sender's business
        self._server = await asyncio.get_running_loop().create_server(
            lambda: BoundedProtocol(config, self._state, {}),
            sock=listening,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_LIMIT if self._tls else None,
            backlog=_BACKLOG,
        )
        host, port = listening.getsockname()[:2]
        self._log.info(Event.HTTP_STARTED, host=host, port=port, tls=self._tls is not None)
        if not self._is_protected() and not is_loopback(host):
            self._log.warning(
                Event.HTTP_UNPROTECTED,
                message=f"everybody who reaches port {port} may read metrics; /events is served to this machine only",
                cure="--metrics-auth-token, --metrics-allow-cidrs, --metrics-tls-client-ca, "
                "or --metrics-addr 127.0.0.1:PORT",
            )

    def _is_protected(self) -> bool:
        settings = self._settings
        return bool(settings.auth_token or settings.allow or settings.tls_client_ca)

    def _guarded(self) -> Guard:
        settings = self._settings
        return Guard(
            Pages(self._vitals, self._probe, self._metrics, self._fleet, self._feed).app(),
            allow=settings.allow,
            token=Token(settings.auth_token) if settings.auth_token else None,
            failures=FailedLogins(settings.auth_limit, settings.auth_window.total_seconds(), settings.auth_max_entries),
            events_to_all=self._is_protected(),
            on_refusal=lambda status: self._metrics.count("reproq_http_refused_total", status),
        )

    async def close(self) -> None:
        """Stop listening and end all connections, answers under way within a second."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = set(self._state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0 if len(self._feed) else _CLOSE_LIMIT)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_LIMIT)
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._probe.close()
        await self._fleet.close()


def is_loopback(host: str) -> bool:
    return ip_address(host.partition("%")[0]).is_loopback


def open_socket(host: str | None, port: int) -> socket.socket:
    """Bind an address; None: all interfaces, IPv6 and IPv4 where the system has both. Raises SettingError."""
    where = f"{host or 'all interfaces'}, port {port}"
    try:
        family, address = _resolve(host, port)
        listening = BoundedListener(family)
    except OSError as error:
        raise SettingError(f"--metrics-addr: {where}: {error.strerror or error}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host is None else 1)
        listening.bind(address)
        listening.settimeout(0)
    except OSError as error:
        listening.close()
        cure = {13: "; ports below 1024 need a privilege", 98: "; is another worker running here?"}.get(
            error.errno or 0, ""
        )
        raise SettingError(f"--metrics-addr (--metrics-port): {where}: {error.strerror}{cure}") from None
    return listening


def _resolve(host: str | None, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    if host is None:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("0.0.0.0", port)  # noqa: S104 - the contract: a bare port binds all interfaces
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, (str(address[0]), port)


def tls_context(settings: HttpSettings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the certificate; with a client CA, only for who shows a certificate of it."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as error:
        raise SettingError(
            f"--metrics-tls-cert {settings.tls_cert}, --metrics-tls-key {settings.tls_key}: {_why(error)}"
        ) from None
    if settings.tls_client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=settings.tls_client_ca)
        except OSError as error:
            raise SettingError(f"--metrics-tls-client-ca {settings.tls_client_ca}: {_why(error)}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key has a password: give one without")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a usable PEM file, or key and certificate do not belong together ({error.reason})"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
