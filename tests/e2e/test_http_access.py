"""Who gets in: addresses, tokens and certificates on real sockets."""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from psycopg import sql
from psycopg.conninfo import make_conninfo

from reproq_listen.config.settings import HttpSettings
from reproq_listen.errors import SettingError
from reproq_listen.http.connections import Connections
from reproq_listen.http.limits import HttpLimits
from reproq_listen.http.server import open_listener, tls_context
from reproq_listen.logs.event_log import Event
from tests.support.database import Database, create_database, drop_database, wait_until
from tests.support.pages import Pages, metric, own_address, read_all, settings

TOKEN = "a-long-enough-token"
PAGES = ("/metrics", "/healthz", "/readyz", "/events", "/nothing")


@pytest.fixture(scope="module")
def web_database(server_dsn: str, template: Database) -> Iterator[Database]:
    database = create_database(server_dsn, f"reproq_{uuid.uuid4().hex[:12]}", template=template.name)
    yield database
    drop_database(server_dsn, database.name)


def test_http_access_every_page_but_livez_asks_for_the_token(web_database: Database) -> None:
    """401 with the scheme; with the token the page. /livez needs none: it tells nothing."""
    with Pages(web_database, settings(auth_token=TOKEN)) as pages:
        for path in PAGES:
            answer = pages.get(path, Authorization="Bearer wrong")
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert TOKEN.encode() not in answer.body
        assert pages.get("/healthz", Authorization=f"Bearer {TOKEN}") == pages.get(
            "/healthz", Authorization=f"bearer {TOKEN}"
        )
        assert pages.get("/healthz", Authorization=f"Bearer {TOKEN}").body == b"ok"
        assert pages.get("/healthz", X_Api_Key=TOKEN).status == 401
        assert pages.get(f"/healthz?token={TOKEN}").status == 401
        line = f"Authorization: Bearer {TOKEN}\r\n"
        two = f"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{line}{line}\r\n"
        assert pages.raw(two.encode()).startswith(b"HTTP/1.1 401")
        assert pages.get("/livez").status == 200


def test_wrong_tokens_are_limited_and_the_right_one_never(web_database: Database) -> None:
    """401 up to the limit, then 429 with the time to wait; a client with the token is always served."""
    with Pages(web_database, settings(auth_token=TOKEN, auth_limit=3)) as pages:
        answers = [pages.get("/metrics", Authorization=f"Bearer guess{n}") for n in range(5)]
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 61
        page = pages.get("/metrics", Authorization=f"Bearer {TOKEN}")
        assert page.status == 200
        assert metric(page.body, "reproq_http_refused_total", status="429") == 2


def test_addresses_go_before_tokens_and_methods(web_database: Database) -> None:
    """Outside the allow-list everything is 403, whatever X-Forwarded-For says; wrong tokens are not counted."""
    with Pages(web_database, settings(auth_token=TOKEN, allow=(ip_network("10.0.0.0/8"),))) as pages:
        for path in ("/livez", *PAGES):
            answer = pages.get(
                path, Authorization=f"Bearer {TOKEN}", X_Forwarded_For="10.0.0.1", Forwarded="for=10.0.0.1"
            )
            assert answer.status == 403, path
        assert pages.get("/metrics", method="POST").status == 403
    with Pages(web_database, settings(allow=(ip_network("127.0.0.0/8"),))) as pages:
        assert pages.get("/metrics").status == 200


def test_http_access_names_of_pages_in_a_browser_are_refused(web_database: Database) -> None:
    """On loopback without a token a page may have its name lead here (DNS rebinding); a token makes any name good."""

    def status(pages: Pages, host: str) -> bytes:
        request = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        return pages.raw(request.encode()).split(b" ")[1]

    with Pages(web_database, settings()) as pages:
        for host in ("localhost:9464", "127.0.0.1", "[::1]:1", "[::ffff:127.0.0.1]", "worker", "a.localhost"):
            assert status(pages, host) == b"200", host
        for host in ("evil.example", "evil.example.:9464", "127.0.0.1.evil.example"):
            assert status(pages, host) == b"403", host
    for protected in (settings(auth_token=TOKEN), settings(allow=(ip_network("127.0.0.0/8"),))):
        with Pages(web_database, protected) as pages:
            assert status(pages, "metrics.example") == b"200"


def test_http_access_all_interfaces_unprotected_is_warned_about(web_database: Database) -> None:
    """A bare port binds all interfaces, IPv6 too; unprotected it is logged, and events go to this machine only."""
    with Pages(web_database, settings(host=None)) as pages:
        assert [event for event, _ in pages.logged if event is Event.HTTP_UNPROTECTED]
        assert pages.get("/livez").status == 200
        if socket.has_dualstack_ipv6():
            with socket.create_connection(("::1", pages.port), timeout=5) as connection:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"200 OK" in connection.recv(4096)
        other = own_address()
        if other is not None:
            request = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            for path, status in ((b"/metrics", b" 200 "), (b"/events", b" 403 ")):
                with socket.create_connection((other, pages.port), timeout=5) as connection:
                    connection.sendall(request % path)
                    assert status in connection.recv(4096), path
    for protected in (settings(host=None, auth_token=TOKEN), settings()):
        with Pages(web_database, protected) as pages:
            assert not [event for event, _ in pages.logged if event is Event.HTTP_UNPROTECTED]


class Certificates(NamedTuple):
    """Files, and what a client trusts."""

    cert: str
    key: str
    ca: str
    trust: ssl.SSLContext


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificates(tmp_path: Path, authority: trustme.CA) -> Certificates:
    issued = authority.issue_cert("localhost")
    chain, key, ca = (tmp_path / name for name in ("chain.pem", "key.pem", "ca.pem"))
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    trust = ssl.create_default_context(cafile=str(ca))
    return Certificates(str(chain), str(key), str(ca), trust)


def secure(certificates: Certificates, *, mutual: bool = False) -> HttpSettings:
    return settings(
        tls_cert=certificates.cert, tls_key=certificates.key, tls_client_ca=certificates.ca if mutual else None
    )


def client(certificates: Certificates, ca: trustme.CA | None, *, expired: bool = False) -> ssl.SSLContext:
    """What a client with a certificate of `ca` uses; None: without one."""
    context = ssl.create_default_context(cafile=certificates.ca)
    if ca is not None:
        end = datetime.now(UTC) + timedelta(days=-1 if expired else 1)
        issued = ca.issue_cert("client@example.org", not_before=end - timedelta(days=9), not_after=end)
        issued.configure_cert(context)
    return context


def test_tls_serves_and_plain_http_gets_nothing(web_database: Database, certificates: Certificates) -> None:
    """The page over TLS 1.2 and 1.3; older versions and plain requests end without one."""
    with Pages(web_database, secure(certificates)) as pages:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            certificates.trust.minimum_version = certificates.trust.maximum_version = version
            assert pages.get("/healthz", tls=certificates.trust).body == b"ok"
        assert b"HTTP" not in pages.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        old = ssl.create_default_context(cafile=certificates.ca)
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            pages.get("/livez", tls=old)
        assert pages.get("/livez", tls=certificates.trust).status == 200


def test_http_access_handshake_that_never_ends_counts_as_a_connection(
    web_database: Database, certificates: Certificates
) -> None:
    """Silent connections are limited before TLS as well, and make room when their clients close them."""
    with Pages(web_database, secure(certificates), HttpLimits(connections=3, connections_for_loopback=0)) as pages:
        with ExitStack() as stack:
            silent = [stack.enter_context(pages.connect()) for _ in range(4)]
            silent[-1].settimeout(5)  # less than the deadline of its handshake
            assert read_all(silent[-1]) == b""
        wait_until(lambda: _is_served(pages, certificates.trust), what="room again")


def test_http_access_handshake_has_a_deadline(web_database: Database, certificates: Certificates) -> None:
    """A client that connects and sends no TLS hello is dropped."""
    with Pages(web_database, secure(certificates), HttpLimits(request_seconds=0.3)) as pages:
        with pages.connect() as silent:
            assert read_all(silent) == b""
        assert _is_served(pages, certificates.trust)


def test_http_access_client_ca_lets_only_its_own_in(
    web_database: Database, certificates: Certificates, authority: trustme.CA
) -> None:
    """No certificate, one of another CA, an expired one: no page. One of the CA: all pages, and no warning."""
    with Pages(web_database, secure(certificates, mutual=True)) as pages:
        assert pages.get("/healthz", tls=client(certificates, authority)).body == b"ok"
        refused = {
            "none": client(certificates, None),
            "wrong": client(certificates, trustme.CA()),
            "expired": client(certificates, authority, expired=True),
        }
        for name, context in refused.items():
            assert not _is_served(pages, context), name
        assert pages.get("/livez", tls=client(certificates, authority)).status == 200


def _is_served(pages: Pages, context: ssl.SSLContext) -> bool:
    """Whether a request gets any answer. With TLS 1.3 a refusal comes after the client's side of the handshake."""
    try:
        return b"HTTP" in pages.raw(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", tls=context)
    except (ssl.SSLError, OSError):
        return False


def test_files_that_cannot_be_used_are_refused_by_name(certificates: Certificates, tmp_path: Path) -> None:
    """Missing, not PEM, a key of another certificate: the flag, the file, the reason."""
    other = trustme.CA().issue_cert("localhost")
    key, text = tmp_path / "other.pem", tmp_path / "text"
    other.private_key_pem.write_to_path(str(key))
    text.write_text("hello")
    for changes, words in [
        ({"tls_cert": "/missing"}, ["--metrics-tls-cert /missing", "No such file"]),
        ({"tls_cert": str(text)}, ["--metrics-tls-cert", "not a usable PEM"]),
        ({"tls_key": str(key)}, ["--metrics-tls-key", "do not belong together"]),
        ({"tls_client_ca": str(text)}, ["--metrics-tls-client-ca", "not a usable PEM"]),
        ({"tls_client_ca": "/missing"}, ["--metrics-tls-client-ca /missing", "No such file"]),
    ]:
        given = {"tls_cert": certificates.cert, "tls_key": certificates.key, **changes}
        with pytest.raises(SettingError) as caught:
            tls_context(settings(**given))
        for word in words:
            assert word in str(caught.value)


def test_http_access_address_that_cannot_be_had_is_refused_by_name() -> None:
    """A port in use, an address of another machine, an unknown name."""
    connections = Connections(HttpLimits())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=rf"port {port}: Address already in use; is another worker"):
            open_listener("127.0.0.1", port, connections)
    with pytest.raises(SettingError, match=r"192\.0\.2\.1, port 9999: "):
        open_listener("192.0.2.1", 9999, connections)
    with pytest.raises(SettingError, match=r"no\.such\.host\.invalid, port 1: "):
        open_listener("no.such.host.invalid", 1, connections)


def test_metrics_without_the_right_to_fleet_numbers(web_database: Database) -> None:
    """No EXECUTE on reproq_metrics: the page has the worker's own metrics, and the log says what is missing."""
    role = sql.Identifier(f"{web_database.name}_poor")
    with web_database.connect() as connection:
        connection.execute(sql.SQL("create role {} login").format(role))
        connection.execute(sql.SQL("grant execute on function reproq_contract() to {}").format(role))
    poor = Database(web_database.name, make_conninfo(web_database.dsn, user=f"{web_database.name}_poor"))
    try:
        with Pages(poor) as pages:
            page = pages.get("/metrics")
            assert page.status == 200
            assert metric(page.body, "reproq_worker_concurrency") == 10
            assert metric(page.body, "reproq_workers") is None
            (refusal,) = (fields for event, fields in pages.logged if event is Event.DATABASE_REFUSED)
            assert "reproq_metrics" in str(refusal["reason"])
            assert pages.get("/healthz").body == b"ok"
    finally:
        with web_database.connect() as connection:
            connection.execute(sql.SQL("drop owned by {}").format(role))
            connection.execute(sql.SQL("drop role {}").format(role))
