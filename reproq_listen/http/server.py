"""The HTTP server of a worker: the listening socket, TLS if configured, and the application behind them.

Only this package imports starlette, uvicorn and prometheus_client.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Mapping, Sequence

import uvicorn

from reproq_listen.config.settings import HttpSettings, WorkerSettings
from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database, prepare_session
from reproq_listen.errors import SettingError
from reproq_listen.http.access import FailedLogins, Token, is_loopback
from reproq_listen.http.app import AccessControl, Pages
from reproq_listen.http.connections import Connections, Deadlines, LimitedListener
from reproq_listen.http.event_stream import EventBroker
from reproq_listen.http.fleet import Fleet
from reproq_listen.http.limits import HttpLimits
from reproq_listen.http.metrics import HasCalls, Metrics
from reproq_listen.http.probes import DatabaseProbe, WorkerHealth
from reproq_listen.logs.event_log import Event, Log

_DATABASE_LIMIT = 5.0  # seconds for a call that a page makes
_KEEP_ALIVE = 20  # seconds; longer than the usual pause of a scraper, 15 s
_CLOSE_LIMIT = 1  # second for answers that are being sent
_BACKLOG = 256


class PortTakenError(SettingError):
    """Another process listens there."""


class HttpServer:
    """Owns the listening socket, the open connections, and database connections of its own for what pages ask.

    `tap` must be one of the taps of the worker's log; the server makes metrics, probes and events from what it gets.
    """

    def __init__(
        self,
        settings: HttpSettings,
        worker: WorkerSettings,
        conninfo: str,
        connections: Sequence[HasCalls],
        log: Log,
        limits: HttpLimits = HttpLimits(),  # noqa: B008 - frozen
    ) -> None:
        """`conninfo`: the database. `connections`: the worker's, for metrics; read at each scrape.

        Raises SettingError for certificates that cannot be used.
        """
        self._settings = settings
        self._log = log
        self._limits = limits
        self._tls = tls_context(settings)
        self._health = WorkerHealth(worker)
        self._broker = EventBroker()
        tapped = log.tapped(self.tap)
        # Counting the fleet may take seconds: the probe does not wait for it.
        self._databases = [
            Database(Connection(conninfo, job, tapped, prepare_session, _DATABASE_LIMIT), worker.schema)
            for job in ("probe", "fleet")
        ]
        self._probe = DatabaseProbe(self._databases[0])
        self._fleet = Fleet(self._databases[1], tapped)
        self._metrics = Metrics(worker.concurrency, connections, self._fleet)
        self._connections = Connections(limits)
        self._server: uvicorn.Server | None = None

    def tap(self, event: Event, level: int, fields: Mapping[str, object]) -> None:
        """Take an event of the worker's log."""
        self._health.tap(event, level, fields)
        self._metrics.tap(event, level, fields)
        self._broker.tap(event, level, fields)

    async def start(self) -> None:
        """Listen. Raises SettingError if the address cannot be used, PortTakenError among others."""
        listener = open_listener(self._settings.host, self._settings.port, self._connections)
        is_local = is_loopback(listener.getsockname()[0]) and not self._is_protected()
        self._server = await _serve(self._app(is_local=is_local), listener, self._tls, self._limits)
        host, port = listener.getsockname()[:2]
        self._log.info(Event.HTTP_STARTED, host=host, port=port, tls=self._tls is not None)
        if not self._is_protected() and not is_loopback(host):
            self._log.warning(
                Event.HTTP_UNPROTECTED,
                message=f"anyone who can connect to port {port} may read metrics; /events is served to this machine "
                "only",
                remedy="--metrics-auth-token, --metrics-allow-cidrs, --metrics-tls-client-ca, "
                "or --metrics-addr 127.0.0.1:PORT",
            )

    def _is_protected(self) -> bool:
        settings = self._settings
        return bool(settings.auth_token or settings.allow or settings.tls_client_ca)

    def _app(self, *, is_local: bool) -> Deadlines:
        settings = self._settings
        pages = Pages(self._health, self._probe, self._metrics, self._fleet, self._broker, self._limits)
        controlled = AccessControl(
            pages.app(),
            allow=settings.allow,
            token=Token(settings.auth_token) if settings.auth_token else None,
            failed_logins=FailedLogins(
                settings.auth_limit, settings.auth_window.total_seconds(), settings.auth_max_entries
            ),
            events_to_all=self._is_protected(),
            is_local=is_local,
            on_refusal=lambda status: self._metrics.count("reproq_http_refused_total", status),
        )
        return Deadlines(controlled, self._connections, self._limits)

    async def close(self) -> None:
        """Stop listening and end all connections; answers that are being sent have a second."""
        self._broker.close()
        if self._server is not None:
            await self._server.shutdown()
        self._connections.close()
        await self._probe.close()
        await self._fleet.close()
        for database in self._databases:
            await database.close()


async def _serve(
    app: Deadlines, listener: socket.socket, tls: ssl.SSLContext | None, limits: HttpLimits
) -> uvicorn.Server:
    """Start uvicorn on a bound socket.

    Like its `serve()`, without what belongs to a process of its own: signal handlers, and a wake-up every 0.1 s.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level=logging.CRITICAL,  # a bad request is its client's problem
        access_log=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_CLOSE_LIMIT,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    return server


def open_listener(host: str | None, port: int, connections: Connections) -> LimitedListener:
    """Bind an address; None: all interfaces, IPv6 and IPv4 where the system has both. Raises SettingError."""
    where = f"{host or 'all interfaces'}, port {port}"
    try:
        family, address = _resolve(host, port)
        listener = LimitedListener(family, connections)
    except OSError as error:
        raise SettingError(f"--metrics-addr: {where}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host in (None, "::") else 1)
        listener.bind(address)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        problem = f"--metrics-addr (--metrics-port): {where}: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(f"{problem}; is another worker running here?") from None
        hint = "; ports below 1024 need a privilege" if error.errno == errno.EACCES else ""
        raise SettingError(problem + hint) from None
    return listener


def _resolve(host: str | None, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    if host is None:
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, ("::", port)
        return socket.AF_INET, ("0.0.0.0", port)  # noqa: S104 - the contract: a bare port binds all interfaces
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, (str(address[0]), port)


def tls_context(settings: HttpSettings) -> ssl.SSLContext | None:
    """TLS 1.2 or newer with the certificate; with a client CA, only for clients with a certificate of it."""
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
    raise ValueError("the key has a password: give a key without one")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a usable PEM file, or key and certificate do not belong together ({error.reason})"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
