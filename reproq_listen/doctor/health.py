"""Is the worker of this host alive? Asked from outside its process, by a container's health check."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from datetime import timedelta

from msgspec import Struct

from reproq_listen.config.settings import HttpSettings
from reproq_listen.db.catalog_queries import Examined
from reproq_listen.db.errors import CallError, CallRefused

_LIMIT = 5.0  # seconds for the page
_PAGE = "/livez"  # not /healthz: a worker whose database is away is waiting for it, and must not be restarted for that
_HANDSHAKE = b"\x16"  # the first byte of a TLS server's hello
_ALL_INTERFACES = (None, "", "0.0.0.0", "::")  # noqa: S104 - where it binds, not where we do


class Health(Struct, frozen=True):
    """Whether it is alive, and how that is known."""

    healthy: bool
    said: str


def by_page(settings: HttpSettings) -> Health:
    """Ask the worker itself. Any answer below 500 is a sign of life, a refusal by its access rules included."""
    host = "127.0.0.1" if settings.host in _ALL_INTERFACES else str(settings.host)
    if settings.tls_client_ca is not None:
        return _by_hello(host, settings.port)
    where = f"{host}:{settings.port}{_PAGE}"
    if settings.tls_cert is None:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_LIMIT)
    else:
        connection = http.client.HTTPSConnection(host, settings.port, timeout=_LIMIT, context=_trusting())
    try:
        connection.request("GET", _PAGE)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Health(healthy=False, said=f"{where} does not answer: {error!r}")
    finally:
        connection.close()
    return Health(healthy=status < 500, said=f"{where} answered {status}")


def _by_hello(host: str, port: int) -> Health:
    """Whom a client CA keeps out still gets the worker's half of a TLS handshake; it turns like any page."""
    outgoing = ssl.MemoryBIO()
    hello = _trusting().wrap_bio(ssl.MemoryBIO(), outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=_LIMIT) as connection:
            connection.sendall(outgoing.read())
            answer = connection.recv(1)
    except OSError as error:
        return Health(healthy=False, said=f"{where} does not answer: {error!r}")
    if answer != _HANDSHAKE:
        return Health(healthy=False, said=f"{where} does not speak TLS")
    return Health(healthy=True, said=f"{where} answered, and asks for a client certificate")


async def by_heartbeat(examined: Examined, worker_id: str | None, hostname: str, within: timedelta) -> Health:
    """Look for the worker's row: by its id, else the latest of this host. It must have been seen `within`.

    Raises CallRefused.
    """
    who = f"worker {worker_id}" if worker_id else f"a worker on {hostname}"
    try:
        silent = await examined.silence(worker_id, hostname)
    except CallRefused:
        raise
    except CallError as error:
        return Health(healthy=False, said=f"the database does not say when {who} was last seen: {error}")
    if silent is None:
        return Health(healthy=False, said=f"{who} was not seen in the last five minutes")
    said = f"{who} was seen {silent.total_seconds():.0f} s ago; at most {within.total_seconds():.0f} s are allowed"
    return Health(healthy=silent <= within, said=said)


def _trusting() -> ssl.SSLContext:
    """The certificate names the outside of the host, and we ask from within: nothing is checked, nothing is told."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
