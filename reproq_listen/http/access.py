"""Who may read what: the client's address, its bearer token, and a limit on wrong tokens.

Only the address of the connection counts. X-Forwarded-For is a claim of the client and is not looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_HOST_BITS_OF_IPV6 = 64  # a host that has one address of such a network can have them all

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


def peer_address(host: str) -> IPAddress | None:
    """The address of a peer, without a zone; an IPv4 address mapped into IPv6 as IPv4. None: unreadable."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_rebindable(host_headers: list[bytes]) -> bool:
    """Whether a Host header could be that of a page in a browser of this machine whose name now leads here: a name with
    a dot. Addresses and `localhost` are no such names."""
    name = re.sub(r":\d*$", "", b"".join(host_headers).decode("latin-1")).strip("[]").rstrip(".")
    return "." in name and not re.fullmatch(r"[\d.]+|.*:.*|.*\.localhost", name, re.IGNORECASE)


def is_loopback(host: str) -> bool:
    """Whether the address is of this machine alone."""
    address = peer_address(host)
    return address is not None and address.is_loopback


def is_allowed(address: IPAddress | None, networks: Iterable[IPNetwork]) -> bool:
    """Whether the address lies in one of the networks."""
    return address is not None and any(address in _unmapped(network) for network in networks)


def _unmapped(network: IPNetwork) -> IPNetwork:
    """A network written in IPv4-mapped form means the IPv4 network."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ip_network((mapped, network.prefixlen - 96))


class Token:
    """A bearer token, kept and compared as a digest: the time of a comparison tells nothing about it."""

    def __init__(self, text: str) -> None:
        self._digest = hashlib.sha256(text.encode()).digest()

    def is_in(self, authorizations: list[bytes]) -> bool:
        """Whether a request has exactly one Authorization header and it holds this token."""
        given = authorizations[0] if len(authorizations) == 1 else b""
        scheme, _, text = given.partition(b" ")
        is_right = hmac.compare_digest(hashlib.sha256(text.strip(b" ")).digest(), self._digest)
        return is_right and scheme.lower() == b"bearer"


class FailedLogins:
    """Counts wrong tokens per remote host, of at most `max_hosts`; the host that failed longest ago is forgotten.

    A right token always passes: a client must not be locked out by another one behind the same address.
    """

    def __init__(self, limit: int, window: float, max_hosts: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`window`: seconds, from a host's first failure."""
        self._limit = limit
        self._window = window
        self._max_hosts = max_hosts
        self._clock = clock
        self._hosts: OrderedDict[IPNetwork | None, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    def record(self, address: IPAddress | None) -> float | None:
        """Count a failure. Gives the seconds to wait if the host has used up its failures, else None."""
        host = _host(address)
        now = self._clock()
        count, began = self._hosts.pop(host, (0, now))
        if now - began >= self._window:
            count, began = 0, now
        self._hosts[host] = (count + 1, began)
        while len(self._hosts) > self._max_hosts:
            self._hosts.popitem(last=False)
        return self._window - (now - began) if count >= self._limit else None


def _host(address: IPAddress | None) -> IPNetwork | None:
    if address is None:
        return None
    bits = _HOST_BITS_OF_IPV6 if isinstance(address, IPv6Address) else 32
    return ip_network((address, bits), strict=False)
