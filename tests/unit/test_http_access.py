"""Who may read: addresses, tokens, and the limit on wrong tokens."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from reproq_listen.http.access import FailedLogins, Token, is_allowed, peer_address


@pytest.mark.parametrize(
    ("peer", "networks", "allowed"),
    [
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["::ffff:10.0.0.0/104"], True),
        ("10.1.2.3", ["::ffff:0:0/96"], True),
        ("10.1.2.3", ["::/0"], False),
        ("::1", ["127.0.0.1"], False),
        ("::1", ["127.0.0.1", "::1"], True),
        ("fe80::1%eth0", ["fe80::/10"], True),
        ("not an address", ["0.0.0.0/0", "::/0"], False),
    ],
)
def test_addresses_are_compared_as_what_they_are(peer: str, networks: list[str], allowed: bool) -> None:
    """An IPv4 peer on an IPv6 socket is an IPv4 peer; a zone is no part of the address; an unreadable one is out."""
    assert is_allowed(peer_address(peer), map(ip_network, networks)) is allowed


@pytest.mark.parametrize(
    ("headers", "right"),
    [
        ([b"Bearer s3cret"], True),
        ([b"bearer s3cret"], True),
        ([b"BEARER  s3cret "], True),
        ([], False),
        ([b""], False),
        ([b"Bearer"], False),
        ([b"Bearer "], False),
        ([b"Basic s3cret"], False),
        ([b"s3cret"], False),
        ([b"Bearer s3cret", b"Bearer s3cret"], False),
        ([b"Bearer s3crets"], False),
        ([b"Bearer s3cre"], False),
        ([b"Bearer S3cret"], False),
        ([b"Bearer " + b"x" * (1 << 20)], False),
        ([b"Bearer s3cret\n"], False),
        ([b"Bearer \xff\xfe"], False),
    ],
)
def test_http_access_only_one_right_bearer_token_opens(headers: list[bytes], right: bool) -> None:
    """The scheme in any case; the token exactly; one header, not two."""
    assert Token("s3cret").is_in(headers) is right


def test_http_access_host_has_a_limited_number_of_failures_in_a_window() -> None:
    """Up to the limit they are counted; then the answer is the time to wait; then a new window begins."""
    now = 100.0
    failures = FailedLogins(3, 60, 10, lambda: now)
    host = ip_address("192.0.2.1")
    assert [failures.record(host) for _ in range(4)] == [None, None, None, 60]
    now = 130.0
    assert failures.record(host) == 30
    assert failures.record(ip_address("192.0.2.2")) is None
    now = 160.0
    assert failures.record(host) is None


def test_http_access_network_of_ipv6_counts_as_one_host() -> None:
    """A host that owns a /64 has 2^64 addresses to guess from."""
    failures = FailedLogins(2, 60, 10)
    assert [failures.record(ip_address(f"2001:db8::{n}")) is None for n in range(3)] == [True, True, False]
    assert failures.record(ip_address("2001:db8:0:1::1")) is None


def test_http_access_table_of_failures_is_bounded() -> None:
    """A flood of addresses takes no more memory than the table has rows; the oldest are forgotten first."""
    failures = FailedLogins(1, 60, 5)
    for n in range(1000):
        failures.record(ip_address(n + 1))
    assert len(failures) == 5
    assert failures.record(ip_address(1000)) is not None
    assert failures.record(ip_address(1)) is None
