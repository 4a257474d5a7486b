"""The tasks of `make bench-peers`, the same for all programs. Standard library only: peers have an environment of their
own."""

from __future__ import annotations

import socket
import time


def nothing() -> None:
    return None


def send_time(path: str, label: str) -> None:
    """Send the moment by a clock that all processes of the machine share to a datagram socket."""
    now = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(f"{label} {now!r}".encode(), path)
