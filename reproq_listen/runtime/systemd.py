"""Reports to a service manager such as systemd: sd_notify(3) over its datagram socket, without its library.

Without NOTIFY_SOCKET in the environment nothing is sent. A manager that does not read must not block the worker: a
datagram that cannot be sent is dropped, and the first one in a row is logged.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Self

from reproq_listen.logs.event_log import Event, Log

_STATUS_INTERVAL = 15.0  # seconds between two reports without a watchdog


class ServiceManager:
    """Sends readiness, watchdog messages and a status line.

    `pause`: the maximum time between two calls of `alive`, in seconds.
    """

    def __init__(self, address: str | None, watchdog: float | None, log: Log) -> None:
        self._address = address
        self._has_watchdog = watchdog is not None
        # A caller that waits up to `pause` and then calls `alive` reports at least twice per watchdog interval.
        self.pause = _STATUS_INTERVAL if watchdog is None else watchdog / 4
        self._log = log
        self._ready = False
        self._stopping = False
        self._last = float("-inf")
        self._failed = False

    @classmethod
    def adopt(cls, environ: MutableMapping[str, str], log: Log) -> Self:
        """Remove the manager's variables from the environment, so that no child reports in our name."""
        address = environ.pop("NOTIFY_SOCKET", None)
        microseconds = environ.pop("WATCHDOG_USEC", "")
        pid = environ.pop("WATCHDOG_PID", None)
        is_ours = pid is None or pid == str(os.getpid())
        watched = microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(address or None, int(microseconds) / 1e6 if watched and is_ours else None, log)

    def ready(self, status: str) -> None:
        """The work has begun. Sent once; later calls do nothing."""
        if not self._ready:
            self._ready = True
            self._send("READY=1", f"STATUS={status}")

    def alive(self, status: Callable[[], str]) -> None:
        """Report that the process is alive, at most once in `pause`; `status` is called only then."""
        now = time.monotonic()
        if self._address is not None and now - self._last >= self.pause:
            self._last = now
            self._send(*(["WATCHDOG=1"] if self._has_watchdog else []), f"STATUS={status()}")

    def stopping(self, status: str) -> None:
        """The end has begun. Sent once."""
        if not self._stopping:
            self._stopping = True
            self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines).encode()
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)  # never wait for the manager
                sender.sendto(message, address)
        except OSError as error:
            if not self._failed:
                self._log.warning(Event.NOTIFY_FAILED, address=self._address, reason=str(error))
            self._failed = True
        else:
            self._failed = False
