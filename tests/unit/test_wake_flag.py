"""The flag that wakes the claim loop."""

from __future__ import annotations

import asyncio

from reproq_listen.runtime.wake_flag import WakeFlag, wait_for_event


def test_wake_flag_notify_between_clear_and_wait_ends_the_wait() -> None:
    """Clear, look, wait: a notify during the look ends the wait at once."""

    async def scenario() -> bool:
        wake_flag = WakeFlag()
        wake_flag.clear()
        wake_flag.notify()
        return await wake_flag.wait(5)

    assert asyncio.run(scenario())


def test_wake_flag_clear_removes_an_earlier_notify() -> None:
    """What was notified before the clear is found by the look after it."""

    async def scenario() -> bool:
        wake_flag = WakeFlag()
        wake_flag.notify()
        wake_flag.clear()
        return await wake_flag.wait(0.01)

    assert not asyncio.run(scenario())


def test_wait_for_event_without_event_sleeps() -> None:
    """It returns after the given time, and False."""
    assert asyncio.run(wait_for_event(None, 0.01)) is False
