"""The flag that wakes a loop, and waiting for an event with a time limit."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_for_event(event: asyncio.Event | None, seconds: float | None) -> bool:
    """Wait until the event is set (True) or the time is over (False). Without an event, sleep. None: no limit."""
    if event is None:
        event = asyncio.Event()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


class WakeFlag:
    """A level-triggered flag: clear it, look for work, then wait. A `notify` since the `clear` ends the wait."""

    def __init__(self) -> None:
        self._flag = asyncio.Event()

    def notify(self) -> None:
        self._flag.set()

    def clear(self) -> None:
        self._flag.clear()

    async def wait(self, seconds: float) -> bool:
        """Wait for a `notify`, at most `seconds`. True if there was one since the last `clear`."""
        return await wait_for_event(self._flag, seconds)
