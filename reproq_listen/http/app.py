"""The pages, and the access rules that every request passes first: address, method, form, token, in this order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from typing import ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reproq_listen.http.access import FailedLogins, IPNetwork, Token, is_allowed, is_rebindable, peer_address
from reproq_listen.http.event_stream import EventBroker, EventFilter, Subscriber
from reproq_listen.http.fleet import Fleet
from reproq_listen.http.limits import HttpLimits
from reproq_listen.http.metrics import CONTENT_TYPE, Metrics
from reproq_listen.http.probes import DatabaseProbe, WorkerHealth

_MAX_ID = 2**63 - 1
_WITHOUT_TOKEN = "/livez"  # noqa: S105 - a path: the page tells nothing
_ABSOLUTE = re.compile(r"https?://[^/]*", re.IGNORECASE)


class AccessControl:
    """ASGI middleware: passes a request on to `app`, or refuses it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow: tuple[IPNetwork, ...],
        token: Token | None,
        failed_logins: FailedLogins,
        events_to_all: bool,
        is_local: bool,
        on_refusal: Callable[[str], None],
    ) -> None:
        """`events_to_all`: serve /events to other machines, too. `is_local`: this machine alone can connect, and needs
        no token: names that a page in its browser may have are refused. `on_refusal` is called with the status."""
        self._app = app
        self._allow = allow
        self._token = token
        self._failed_logins = failed_logins
        self._events_to_all = events_to_all
        self._is_local = is_local
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
            return _text(403, "this address may not connect (--metrics-allow-cidrs)")
        if scope["http_version"] not in ("1.0", "1.1"):
            return _text(505, "only HTTP/1.1 and HTTP/1.0", connection="close")
        if scope["method"] not in ("GET", "HEAD"):
            return _text(405, "only GET and HEAD", allow="GET, HEAD")
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        if b"transfer-encoding" in headers or headers.get(b"content-length", [b"0"]) != [b"0"]:
            return _text(400, "a request here has no body", connection="close")
        if self._is_local and is_rebindable(headers.get(b"host", [])):
            return _text(403, "ask for localhost or an address here, or set a token (--metrics-auth-token)")
        if not self._events_to_all and scope["path"] == "/events" and not (peer and peer.is_loopback):
            return _text(
                403,
                "/events is served to this machine only, until there is a token, an allow-list or a client CA "
                "(--metrics-*)",
            )
        if (
            self._token is None
            or scope["path"] == _WITHOUT_TOKEN
            or self._token.is_in(headers.get(b"authorization", []))
        ):
            return None
        wait = self._failed_logins.record(peer)
        if wait is not None:
            return _text(429, "too many wrong tokens from this host", retry_after=str(int(wait) + 1))
        return _text(401, "a bearer token is needed (--metrics-auth-token)", www_authenticate="Bearer")


def _text(status: int, text: str, **headers: str) -> Response:
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
    """The pages that are served."""

    PATHS: ClassVar = {
        "/metrics": "_metrics_page",
        "/healthz": "_health_page",
        "/livez": "_liveness_page",
        "/readyz": "_readiness_page",
        "/events": "_event_page",
    }

    def __init__(
        self,
        health: WorkerHealth,
        database: DatabaseProbe,
        metrics: Metrics,
        fleet: Fleet,
        broker: EventBroker,
        limits: HttpLimits,
    ) -> None:
        self._health = health
        self._database = database
        self._metrics = metrics
        self._fleet = fleet
        self._broker = broker
        self._limits = limits

    def app(self) -> Starlette:
        app = Starlette(routes=[Route(path, getattr(self, page)) for path, page in self.PATHS.items()])
        # /metrics/ is not a page.
        app.router.redirect_slashes = False
        return app

    async def _metrics_page(self, request: Request) -> Response:
        await self._fleet.renew()
        return Response(self._metrics.page(self._broker.dropped), media_type=CONTENT_TYPE)

    async def _health_page(self, request: Request) -> Response:
        if await self._database.failures():
            return PlainTextResponse("unhealthy", 503)
        return PlainTextResponse("ok")

    async def _liveness_page(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readiness_page(self, request: Request) -> Response:
        failures = self._health.failures() | await self._database.failures()
        return JSONResponse({"ready": not failures, "failures": failures}, 503 if failures else 200)

    async def _event_page(self, request: Request) -> Response:
        try:
            wanted, after = _filter_of(request)
        except ValueError as error:
            return _text(400, str(error))
        if len(self._broker) >= self._limits.subscribers:
            return _text(503, f"{self._limits.subscribers} clients read events already", retry_after="15")
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        return _EventStream(self._broker, wanted, after, self._limits.comment_seconds)


def _filter_of(request: Request) -> tuple[EventFilter, int]:
    """What a client asks for, and the number of the last event it knows. Raises ValueError."""
    asked = request.query_params
    for name in ("queue", "worker_id", "task_id"):
        if len(asked.getlist(name)) > 1:
            raise ValueError(f"{name} is given more than once")
    task_id = asked.get("task_id")
    if task_id and not (re.fullmatch(r"\d{1,19}", task_id, re.ASCII) and int(task_id) <= _MAX_ID):
        raise ValueError("task_id must be the number of a task")
    last = request.headers.get("last-event-id", "")
    after = int(last) if re.fullmatch(r"\d{1,18}", last, re.ASCII) else 0
    wanted = EventFilter(asked.get("queue") or None, asked.get("worker_id") or None, int(task_id) if task_id else None)
    return wanted, after


class _EventStream(StreamingResponse):
    """Sends events until the client goes or the broker closes."""

    def __init__(self, broker: EventBroker, wanted: EventFilter, after: int, comment_seconds: float) -> None:
        self._broker = broker
        self._subscriber = broker.subscribe(wanted, after)
        super().__init__(_event_texts(self._subscriber, comment_seconds), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._broker.unsubscribe(self._subscriber)


async def _event_texts(subscriber: Subscriber, comment_seconds: float) -> AsyncIterator[bytes]:
    text: bytes | None = b": events\n\n"
    while text is not None:
        yield text
        try:
            async with asyncio.timeout(comment_seconds):
                text = await subscriber.next()
        except TimeoutError:
            text = b": still here\n\n"
