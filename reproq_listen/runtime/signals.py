"""Signals to the process: the first one to stop drains, the second kills; SIGHUP reloads."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

_DRAINING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP drains until there is something to reload: see `on_hangup`."""


class Stop:
    """Two events that are set once and never cleared."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self.killing = asyncio.Event()

    def drain(self) -> None:
        """Let running tasks end. A second call kills."""
        if self.draining.is_set():
            self.killing.set()
        self.draining.set()

    def kill(self) -> None:
        """Stop running tasks now."""
        self.draining.set()
        self.killing.set()


@contextmanager
def on_signals(stop: Stop) -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP drain, SIGQUIT kills. Signals ignored at the start (nohup) stay ignored."""
    loop = asyncio.get_running_loop()
    handlers = dict.fromkeys(_DRAINING, stop.drain) | {signal.SIGQUIT: stop.kill}
    handled = [number for number in handlers if signal.getsignal(number) is not signal.SIG_IGN]
    for number in handled:
        loop.add_signal_handler(number, handlers[number])
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@contextmanager
def on_hangup(
    reload: Callable[[], Coroutine[None, None, None]], on_error: Callable[[Exception], None]
) -> Iterator[None]:
    """Within this block SIGHUP reloads instead of draining; after it, SIGHUP does nothing.

    Signals during a reload cause one more reload. `on_error` gets what a reload raises.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield
        return
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    async def serve() -> None:
        while await asked.wait():
            asked.clear()
            try:
                await reload()
            except Exception as error:  # noqa: BLE001 - the next reload may succeed
                on_error(error)

    loop.add_signal_handler(signal.SIGHUP, asked.set)
    server = loop.create_task(serve())
    try:
        yield
    finally:
        server.cancel()
        loop.add_signal_handler(signal.SIGHUP, asked.clear)  # the default would end the process in its shutdown
