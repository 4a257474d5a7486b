"""The pages, behind a guard that every request passes: address, method, form, token, in this order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from email.utils import formatdate
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reproq_listen.http.access import FailedLogins, Token, is_allowed, peer_address
from reproq_listen.http.event_stream import EventBroker, Filter, Reader
from reproq_listen.http.fleet import Fleet
from reproq_listen.http.metrics import CONTENT_TYPE, Metrics
from reproq_listen.http.probes import DatabaseProbe, WorkerHealth

_KEEP_ALIVE = 15.0  # seconds between comments on a silent event stream
_MAX_READERS = 50
_LARGEST_ID = 2**63 - 1
_OPEN = "/livez"  # without token: it says nothing
_ABSOLUTE = re.compile(r"https?://[^/]*", re.IGNORECASE)


class Guard:
    """Lets a request pass to `app` or answers it itself."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow: tuple[IPv4Network | IPv6Network, ...],
        token: Token | None,
        failures: FailedLogins,
        events_to_all: bool,
        on_refusal: Callable[[str], None],
    ) -> None:
        """`events_to_all`: serve /events to other machines; else only to this one. `on_refusal` hears the status."""
        self._app = app
        self._allow = allow
        self._token = token
        self._failures = failures
        self._events_to_all = events_to_all
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "path": _ABSOLUTE.sub("", scope["path"], count=1) or "/"}
        dated = _dated(send)
        refusal = self._refusal(scope)
        if refusal is not None:
            self._on_refusal(str(refusal.status_code))
            await refusal(scope, receive, dated)
        else:
            await self._app(scope, receive, dated)

    def _refusal(self, scope: Scope) -> Response | None:
        peer = peer_address(scope["client"][0]) if scope.get("client") else None
        if self._allow and not is_allowed(peer, self._allow):
            return _said(403, "this address may not connect (--metrics-allow-cidrs)")
        if scope["http_version"] not in ("1.0", "1.1"):
            return _said(505, "only HTTP/1.1 and HTTP/1.0", connection="close")
        if scope["method"] not in ("GET", "HEAD"):
            return _said(405, "only GET and HEAD", allow="GET, HEAD")
        given: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name, []).append(value)
        if b"transfer-encoding" in given or given.get(b"content-length", [b"0"]) != [b"0"]:
            return _said(400, "a request here has no body", connection="close")
        if not self._events_to_all and scope["path"] == "/events" and not (peer and peer.is_loopback):
            return _said(
                403,
                "events go to this machine only, until there is a token, an allow-list or a client CA (--metrics-*)",
            )
        if self._token is None or scope["path"] == _OPEN or self._token.is_in(given.get(b"authorization", [])):
            return None
        wait = self._failures.note(peer)
        if wait is not None:
            return _said(429, "too many wrong tokens from this host", retry_after=str(int(wait) + 1))
        return _said(401, "a bearer token is needed (--metrics-auth-token)", www_authenticate="Bearer")


def _said(status: int, text: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PlainTextResponse(text + "\n", status, headers=named)


def _dated(send: Send) -> Send:
    async def send_dated(message: Message) -> None:
        if message["type"] == "http.response.start":
            date = (b"date", formatdate(usegmt=True).encode())
            message = {**message, "headers": [*message.get("headers", []), date, (b"cache-control", b"no-store")]}
        await send(message)

    return send_dated


class Pages:
    """What is served."""

    PATHS: ClassVar = {
        "/metrics": "_show_metrics",
        "/healthz": "_show_health",
        "/livez": "_show_life",
        "/readyz": "_show_readiness",
        "/events": "_show_events",
    }

    def __init__(
        self, health: WorkerHealth, database: DatabaseProbe, metrics: Metrics, fleet: Fleet, feed: EventBroker
    ) -> None:
        self._vitals = health
        self._database = database
        self._metrics = metrics
        self._fleet = fleet
        self._feed = feed

    def app(self) -> Starlette:
        app = Starlette(routes=[Route(path, getattr(self, page)) for path, page in self.PATHS.items()])
        # /metrics/ is not a page.
        app.router.redirect_slashes = False
        return app

    async def _show_metrics(self, request: Request) -> Response:
        await self._fleet.renew()
        return Response(self._metrics.page(self._feed.dropped), media_type=CONTENT_TYPE)

    async def _show_health(self, request: Request) -> Response:
        if await self._database.failures():
            return PlainTextResponse("unhealthy", 503)
        return PlainTextResponse("ok")

    async def _show_life(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _show_readiness(self, request: Request) -> Response:
        failures = self._vitals.failures() | await self._database.failures()
        return JSONResponse({"ready": not failures, "failures": failures}, 503 if failures else 200)

    async def _show_events(self, request: Request) -> Response:
        try:
            wanted, after = _filter_of(request)
        except ValueError as error:
            return _said(400, str(error))
        if len(self._feed) >= _MAX_READERS:
            return _said(503, f"{_MAX_READERS} readers listen already", retry_after="15")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return _EventStream(self._feed, wanted, after)


def _filter_of(request: Request) -> tuple[Filter, int]:
    """What a reader asks for, and the number of the last event it knows. Raises ValueError."""
    asked = request.query_params
    for name in ("queue", "worker_id", "task_id"):
        if len(asked.getlist(name)) > 1:
            raise ValueError(f"{name} is given more than once")
    task_id = asked.get("task_id")
    if task_id and not (re.fullmatch(r"\d{1,19}", task_id, re.ASCII) and int(task_id) <= _LARGEST_ID):
        raise ValueError("task_id must be the number of a task")
    last = request.headers.get("last-event-id", "")
    after = int(last) if re.fullmatch(r"\d{1,18}", last, re.ASCII) else 0
    wanted = Filter(asked.get("queue") or None, asked.get("worker_id") or None, int(task_id) if task_id else None)
    return wanted, after


class _EventStream(Response):
    """Sends events until the reader goes. `send` waits while the reader's socket is full; events wait bounded."""

    def __init__(self, feed: EventBroker, wanted: Filter, after: int) -> None:
        super().__init__(media_type="text/event-stream")
        self._feed = feed
        self._wanted = wanted
        self._after = after
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reader = self._feed.subscribe(self._wanted, self._after)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            sending = asyncio.create_task(self._send_all(reader, send))
            gone = asyncio.create_task(_wait_until_gone(receive))
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            for task in (sending, gone):
                task.cancel()
            await asyncio.wait({sending, gone})
        finally:
            self._feed.unsubscribe(reader)

    async def _send_all(self, reader: Reader, send: Send) -> None:
        text = b": events\n\n"
        while True:
            await send({"type": "http.response.body", "body": text, "more_body": True})
            try:
                async with asyncio.timeout(_KEEP_ALIVE):
                    text = await reader.next()
            except TimeoutError:
                text = b": still here\n\n"


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
