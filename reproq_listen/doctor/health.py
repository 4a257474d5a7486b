"""Is the worker of this host alive? Asked from outside its process, by a container's health check."""

from __future__ import annotations

import http.client
import ssl
from datetime import timedelta

from msgspec import Struct

from reproq_listen.config.settings import HttpSettings
from reproq_listen.db.catalog_queries import Examined
from reproq_listen.db.errors import CallError, CallRefused

_LIMIT = 5.0  # seconds for each read and write
_PAGE = "/livez"  # not /healthz: a worker that waits for its database must not be restarted
_OF_ALL_INTERFACES = {None: "127.0.0.1", "": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Where to ask a worker that serves on all interfaces."""


class Health(Struct, frozen=True):
    """Whether the worker is alive, and how that is known."""

    healthy: bool
    detail: str


def by_page(settings: HttpSettings) -> Health:
    """Ask the worker itself. Any answer below 500 is a sign of life, also one that refuses us.

    With a client CA the sign of life is the TLS handshake: its certificate proves that the worker's event loop runs,
    and with TLS 1.3 our side of the handshake is complete before the worker misses ours.
    """
    host = _OF_ALL_INTERFACES.get(settings.host) or str(settings.host)
    address = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
    where = f"{address}{_PAGE}"
    if settings.tls_cert is None:
        connection = http.client.HTTPConnection(host, settings.port, timeout=_LIMIT)
    else:
        connection = http.client.HTTPSConnection(host, settings.port, timeout=_LIMIT, context=_unverified())
    try:
        connection.connect()
        if settings.tls_client_ca is not None:
            return Health(healthy=True, detail=f"{address} answered, and asks for a client certificate")
        connection.request("GET", _PAGE)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Health(healthy=False, detail=f"{where} does not answer: {error!r}")
    finally:
        connection.close()
    return Health(healthy=status < 500, detail=f"{where} answered {status}")


async def by_heartbeat(examined: Examined, worker_id: str | None, hostname: str, within: timedelta) -> Health:
    """Look for the worker's row, by its id, else the latest of this host, and for a heartbeat not older than `within`.

    Raises CallRefused.
    """
    who = f"worker {worker_id}" if worker_id else f"a worker on {hostname}"
    try:
        silent = await examined.silence(worker_id, hostname)
    except CallRefused:
        raise
    except CallError as error:
        return Health(healthy=False, detail=f"the database cannot say when {who} was last seen: {error}")
    if silent is None:
        return Health(healthy=False, detail=f"{who} was not seen in the last five minutes")
    detail = f"{who} was seen {silent.total_seconds():.0f} s ago; at most {within.total_seconds():.0f} s are allowed"
    return Health(healthy=silent <= within, detail=detail)


def _unverified() -> ssl.SSLContext:
    """The certificate names the host as others see it, and we ask from inside: it is not checked, and we send nothing
    secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
