"""The flag that wakes the claim loop, and waiting for an event no longer than a limit."""

from __future__ import annotations

import asyncio
import contextlib


async def wait_for_event(event: asyncio.Event | None, seconds: float | None) -> bool:
    """Wait until the event is set (True) or the time is over (False). Without an event it only waits."""
    if event is None:
        event = asyncio.Event()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


class WakeFlag:
    """A flag. Lower it, then look; whoever rings in between makes you look again."""

    def __init__(self) -> None:
        self._flag = asyncio.Event()

    def notify(self) -> None:
        self._flag.set()

    def clear(self) -> None:
        self._flag.clear()

    async def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long. True if it rang."""
        return await wait_for_event(self._flag, seconds)
