"""How much of a worker its HTTP clients may take."""

from __future__ import annotations

from msgspec import Struct


class HttpLimits(Struct, frozen=True, kw_only=True):
    """Limits of one server. Users cannot set them; tests make them small."""

    connections: int = 512
    connections_for_loopback: int = 32
    """Further connections for this machine alone: a flood from elsewhere must not fail a local health check."""
    request_seconds: float = 10.0
    """For the TLS handshake and the first request's head to arrive whole."""
    answer_seconds: float = 30.0
    """For a client to take what was sent, and between an answer and the next request."""
    head_bytes: int = 16 << 10
    """Of a request line and headers that have not arrived whole."""
    subscribers: int = 50
    """Clients that read /events."""
    comment_seconds: float = 15.0
    """Between comments on an event stream without events; the contract's number."""
