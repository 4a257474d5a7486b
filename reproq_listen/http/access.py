"""Who may read what: addresses first, then the bearer token, then patience with those who guess.

Only the address of the connection counts; X-Forwarded-For is somebody's claim and is not looked at.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_HOST_BITS_OF_IPV6 = 64  # whoever has one address of such a network has them all

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def peer_address(host: str) -> Address | None:
    """The address of a peer: an IPv4 address that came mapped into IPv6 as IPv4, without a zone. None: unreadable."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_allowed(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether the address lies in one of the networks."""
    return address is not None and any(address in _unmapped(network) for network in networks)


def _unmapped(network: Network) -> Network:
    """A network written in IPv4-mapped form means the IPv4 network."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < 96:
        return network
    return ip_network((mapped, network.prefixlen - 96))


class Token:
    """A bearer token, kept and compared as a digest, so that a comparison's time says nothing about it."""

    def __init__(self, text: str) -> None:
        self._digest = hashlib.sha256(text.encode()).digest()

    def is_in(self, authorizations: list[bytes]) -> bool:
        """Whether the Authorization headers of a request are exactly one, with this token."""
        given = authorizations[0] if len(authorizations) == 1 else b""
        scheme, _, text = given.partition(b" ")
        is_right = hmac.compare_digest(hashlib.sha256(text.strip(b" ")).digest(), self._digest)
        return is_right and scheme.lower() == b"bearer"


class FailedLogins:
    """Counts wrong tokens per remote host. The table is bounded; the host that failed longest ago is forgotten.

    A right token passes always: whoever shares an address with a guesser must not be locked out by him.
    """

    def __init__(self, limit: int, window: float, most_hosts: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`window`: seconds, from a host's first failure."""
        self._limit = limit
        self._window = window
        self._most_hosts = most_hosts
        self._clock = clock
        self._hosts: OrderedDict[Network | None, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hosts)

    def note(self, address: Address | None) -> float | None:
        """Count a failure. Gives None, or the seconds to wait if the host has used up its failures."""
        host = _host(address)
        now = self._clock()
        count, began = self._hosts.pop(host, (0, now))
        if now - began >= self._window:
            count, began = 0, now
        self._hosts[host] = (count + 1, began)
        while len(self._hosts) > self._most_hosts:
            self._hosts.popitem(last=False)
        return self._window - (now - began) if count >= self._limit else None


def _host(address: Address | None) -> Network | None:
    if address is None:
        return None
    bits = _HOST_BITS_OF_IPV6 if isinstance(address, IPv6Address) else 32
    return ip_network((address, bits), strict=False)
