"""HTTP beyond the usual: odd requests get a definite answer; slow and silent clients cannot block the worker."""

from __future__ import annotations

import random
import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

import pytest

from reproq_listen.http.limits import HttpLimits
from reproq_listen.logs.event_log import Event
from tests.support.database import Database, create_database, drop_database, wait_until
from tests.support.pages import Pages, metric, own_address, parse, read_all, settings

HEAD = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


@pytest.fixture(scope="module")
def odd_database(server_dsn: str, template: Database) -> Iterator[Database]:
    database = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    yield database
    drop_database(server_dsn, database.name)


@pytest.fixture(scope="module")
def pages(odd_database: Database) -> Iterator[Pages]:
    with Pages(odd_database) as served:
        yield served


def still_serves(pages: Pages) -> None:
    assert pages.get("/livez").status == 200


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /livez" + HEAD + b"\r\n", 200),
        (b"HEAD /livez" + HEAD + b"\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET http://x/livez" + HEAD + b"\r\n", 200),
        (b"GET HTTP://x:80/livez?a=b" + HEAD + b"\r\n", 200),
        (b"GET /livez?" + b"a" * 8000 + HEAD + b"\r\n", 200),
        (b"POST /livez" + HEAD + b"\r\n", 405),
        (b"POST /metrics" + HEAD + b"Content-Length: 5\r\n\r\nhello", 405),
        (b"TRACE /livez" + HEAD + b"\r\n", 405),
        (b"OPTIONS *" + HEAD + b"\r\n", 405),
        (b"CONNECT x:443" + HEAD + b"\r\n", 405),
        (b"FROB /livez" + HEAD + b"\r\n", 405),
        (b"get /livez" + HEAD + b"\r\n", 405),
        (b"GET /" + HEAD + b"\r\n", 404),
        (b"GET //livez" + HEAD + b"\r\n", 404),
        (b"GET /livez/" + HEAD + b"\r\n", 404),
        (b"GET /livez%00" + HEAD + b"\r\n", 404),
        (b"GET /../livez" + HEAD + b"\r\n", 404),
        (b"GET /%6civez" + HEAD + b"\r\n", 200),
        (b"GET /%ff" + HEAD + b"\r\n", 404),
        (b"GET /" + b"a" * 9000 + HEAD + b"\r\n", 404),
        (b"GET /livez" + HEAD + b"Content-Length: 5\r\n\r\nhello", 400),
        (b"GET /livez" + HEAD + b"Content-Length: 0\r\n\r\n", 200),
        (b"GET /livez" + HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (b"GET /livez" + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nhi", 400),
        (b"GET /livez" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez" + HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /li vez" + HEAD + b"\r\n", 400),
        (b"GET /livez" + HEAD + b"A B: c\r\n\r\n", 400),
        (b"GET /livez" + HEAD + b"X: a\0b\r\n\r\n", 400),
        (b"GET /livez" + HEAD + b"X: a\r\n folded\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n", 400),
        (b"\r\n\r\n\r\n", 400),
        (b"GET /livez" + HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", 200),
        (b"GET /livez" + HEAD + b"X-Forwarded-For: 127.0.0.1\r\n\r\n", 200),
        (b"GET /events?task_id=abc" + HEAD + b"\r\n", 400),
        (b"GET /events?task_id=-1" + HEAD + b"\r\n", 400),
        (b"GET /events?task_id=18446744073709551616" + HEAD + b"\r\n", 400),
        (b"GET /events?task_id=%00" + HEAD + b"\r\n", 400),
        (b"GET /events?queue=a&queue=b" + HEAD + b"\r\n", 400),
        (b"HEAD /events" + HEAD + b"\r\n", 200),
    ],
)  # fmt: skip
def test_http_odd_request_gets_a_definite_answer(pages: Pages, request_bytes: bytes, status: int) -> None:
    """Only GET and HEAD, no bodies, bounded heads; bytes that are no HTTP get 400; nothing gets no answer or a 500."""
    answer = parse(pages.raw(request_bytes))
    assert answer.status == status, answer
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"
    still_serves(pages)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"a" * (1 << 20),
        b"GET /livez" + HEAD + b"X: " + b"a" * (1 << 20),
        b"GET /livez" + HEAD + b"X: y\r\n" * (1 << 18),
    ],
)
def test_http_head_has_a_bound(pages: Pages, request_bytes: bytes) -> None:
    """More than 16 KiB that are no whole head: 400, or a reset before the client has sent all of it."""
    with pages.connect() as connection:
        _send(connection, request_bytes)
        response = read_all(connection)
    assert response == b"" or parse(response).status == 400
    still_serves(pages)


def test_http_head_has_the_headers_of_a_get_and_no_body(pages: Pages) -> None:
    """HEAD on every page."""
    for path in ("/livez", "/healthz", "/metrics", "/events"):
        answer = pages.get(path, method="HEAD")
        assert (answer.status, answer.body) == (200, b""), path
    assert pages.get("/livez", method="HEAD").headers["content-length"] == "2"


def test_pipelined_requests_are_answered_in_order(pages: Pages) -> None:
    """Three requests in one packet, one of them refused; nothing of a body is ever taken for a request."""
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    two = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    response = pages.raw(one + two + b"GET /livez" + HEAD + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"200", b"404", b"200"]
    smuggled = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 34\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert re.findall(rb"HTTP/1.1 (\d+)", pages.raw(smuggled + one)) == [b"400"]


def test_resets_at_any_moment_leave_no_trace(pages: Pages) -> None:
    """RST before, within and after a request, and while events flow."""
    for part in (
        b"",
        b"GET /li",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        connection = pages.connect()
        connection.sendall(part)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    still_serves(pages)


def test_http_two_hundred_connections_at_once(pages: Pages) -> None:
    """All are answered, on connections that stay open, again and again."""
    with ExitStack() as stack:
        opened = [stack.enter_context(pages.connect()) for _ in range(200)]
        for _ in range(2):
            for connection in opened:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            for connection in opened:
                assert _read_until(connection, b"ok").startswith(b"HTTP/1.1 200")


def test_http_number_of_connections_is_limited(odd_database: Database) -> None:
    """One more than the limit is closed at once, and the others are served."""
    with Pages(odd_database, limits=HttpLimits(connections=5, connections_for_loopback=0)) as pages:
        with ExitStack() as stack:
            opened = [stack.enter_context(pages.connect()) for _ in range(6)]
            assert read_all(opened[-1]) == b""
            opened[0].sendall(b"GET /livez" + HEAD + b"\r\n")
            assert parse(read_all(opened[0])).status == 200
        wait_until(lambda: pages.raw(b"GET /livez" + HEAD + b"\r\n") != b"", what="room again")


def test_http_flood_from_elsewhere_leaves_room_for_this_machine(odd_database: Database) -> None:
    """Its health check must not fail because others hold every connection; its own are limited as well."""
    other = own_address()
    if other is None:
        pytest.skip("this machine has no address but loopback")
    limits = HttpLimits(connections=3, connections_for_loopback=1)
    with Pages(odd_database, settings(host=None), limits) as pages, ExitStack() as stack:
        flood = [stack.enter_context(socket.create_connection((other, pages.port), timeout=10)) for _ in range(4)]
        assert read_all(flood[-1]) == b""
        with pages.connect() as mine, pages.connect() as too_many:
            assert read_all(too_many) == b""
            mine.sendall(b"GET /livez" + HEAD + b"\r\n")
            assert parse(read_all(mine)).status == 200


@pytest.mark.parametrize("before", [b"", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_http_slow_request_is_dropped(odd_database: Database, before: bytes) -> None:
    """A head that comes byte by byte has a deadline, on a new connection and after an answer."""
    limits = HttpLimits(request_seconds=0.3, answer_seconds=0.3)
    with Pages(odd_database, limits=limits) as pages, pages.connect() as connection:
        connection.sendall(before)
        if before:
            _read_until(connection, b"ok")
        began = time.monotonic()
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        connection.settimeout(0.02)
        while not _has_ended(connection):
            assert time.monotonic() - began < 5
            _send(connection, b"z")
        assert time.monotonic() - began > 0.25
        still_serves(pages)


def test_http_client_that_does_not_read_a_page_is_dropped(odd_database: Database) -> None:
    """Whole answers wait for it, pipelined; then its connection goes, with the data that it did not take."""
    with Pages(odd_database, limits=HttpLimits(answer_seconds=0.5)) as pages, socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", pages.port))
        idle.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert _is_dropped(idle)
        still_serves(pages)


def test_http_client_that_does_not_read_events_is_dropped(odd_database: Database) -> None:
    """Its events wait bounded, then are dropped and counted, then its connection goes; another client gets them all."""
    listen = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        Pages(odd_database, limits=HttpLimits(answer_seconds=1.0)) as pages,
        socket.socket() as idle,
        pages.connect() as good,
    ):
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", pages.port))
        idle.sendall(listen)
        good.sendall(listen)
        _read_until(good, b": events\n\n\r\n")
        good.settimeout(0.001)
        for number in range(8000):
            pages.happens(Event.TASK_SUCCESS, task_id=number, queue="q" * 2000, worker_id="w")
            if number % 20 == 0:
                _ready(good)
        wait_until(lambda: b'"task_id":7999,' in _ready(good), what="the last event")
        dropped = metric(pages.get("/metrics").body, "reproq_events_dropped_total")
        assert dropped is not None
        assert dropped > 1000
        assert _is_dropped(idle)
        still_serves(pages)


def test_http_silent_stream_is_kept_alive(odd_database: Database) -> None:
    """A comment every 15 s while nothing happens, and events after it. The deadlines of requests do not end it."""
    assert HttpLimits().comment_seconds == 15
    limits = HttpLimits(comment_seconds=0.2, request_seconds=0.3, answer_seconds=0.3)
    with Pages(odd_database, limits=limits) as pages, pages.connect() as connection:
        connection.sendall(b"GET /events?queue=silent HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(3):
            _read_until(connection, b": still here\n\n\r\n")
        pages.happens(Event.TASK_SUCCESS, task_id=1, queue="silent", worker_id="w")
        assert b'"task_id":1,' in _read_until(connection, b'"metadata":{}}\n\n\r\n')


def test_http_number_of_event_streams_is_limited(odd_database: Database) -> None:
    """One more gets 503 with the time to wait; when a client goes there is room again."""
    listen = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
    with Pages(odd_database, limits=HttpLimits(subscribers=2)) as pages:
        with pages.connect() as one, pages.connect() as two:
            for connection in (one, two):
                connection.sendall(listen)
                _read_until(connection, b": events\n\n\r\n")
            refused = pages.get("/events")
            assert (refused.status, refused.headers["retry-after"]) == (503, "15")
        wait_until(lambda: pages.get("/events", method="HEAD").status == 200, what="room again")


def test_http_end_of_the_server_ends_its_streams(odd_database: Database) -> None:
    """A client of /events sees the end of the stream, not a broken connection; the server does not wait for it."""
    with Pages(odd_database) as pages, pages.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        _read_until(connection, b": events\n\n\r\n")
        began = time.monotonic()
        pages.stop()
        assert read_all(connection) == b"0\r\n\r\n"
        assert time.monotonic() - began < 1


def test_http_many_requests_cost_the_database_little(pages: Pages) -> None:
    """The numbers of the fleet are read once in 15 s, the contract once in 2 s."""

    def calls() -> int:
        return sum(event is Event.DATABASE_CALLED for event, _ in pages.logged)

    began, before = time.monotonic(), calls()
    for _ in range(50):
        for path in ("/metrics", "/healthz", "/readyz"):
            pages.get(path)
    assert calls() - before <= 2 + (time.monotonic() - began) / 2


def test_http_two_thousand_broken_requests(odd_database: Database) -> None:
    """Whatever bytes come: a status that is not 500, or the end of the connection; and the server still serves."""
    whole = (
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n\r\n",
        b"HEAD /events?queue=a&task_id=7 HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 3\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET /readyz HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
    )
    pieces = (
        b"\0",
        b"\r\n",
        b"\n",
        b":",
        b" ",
        b"%",
        b"%00",
        b"\xff",
        b"a" * 5000,
        b"HTTP/9.9",
        b"Content-Length: 1\r\n",
    )
    with Pages(odd_database, limits=HttpLimits(request_seconds=0.5, answer_seconds=0.5)) as pages:
        for first in range(0, 2000, 400):
            with ExitStack() as stack:
                broken = {seed: stack.enter_context(pages.connect()) for seed in range(first, first + 400)}
                for seed, connection in broken.items():
                    _send(connection, _broken(random.Random(seed), whole, pieces))
                for seed, connection in broken.items():
                    response = read_all(connection)
                    assert re.fullmatch(rb"(HTTP/1\.1 (?!500)\d\d\d .*)?", response, re.DOTALL), (seed, response[:200])
        still_serves(pages)


def _broken(rng: random.Random, whole: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    data = bytearray(rng.choice(whole))
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0:
                data[at:at] = rng.choice(pieces)
            case 1:
                del data[at : at + rng.randrange(1, 20)]
            case _:
                data[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(data)


def _is_dropped(connection: socket.socket) -> bool:
    """Whether the server resets the connection within ten seconds. Reads nothing."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | select.POLLERR)
    return bool(poll.poll(10_000))


def _read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """Read until this has come; what follows it, such as earlier events, may come with it."""
    data = b""
    while wanted not in data:
        chunk = connection.recv(65536)
        assert chunk, data
        data += chunk
    return data


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        connection.sendall(data)


def _ready(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except TimeoutError:
        return b""
