"""How long the worker sleeps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from reproq_listen.runtime.wake_flag import WakeFlag
from reproq_listen.worker.polling import PollBackoff


def backoff() -> PollBackoff:
    return PollBackoff(timedelta(milliseconds=100), timedelta(seconds=5))


def test_with_ears_the_safety_poll_is_half_a_minute() -> None:
    """Nothing known ahead and listening verified: a look every 27 to 30 seconds."""
    assert all(27 <= backoff().pause(None, verified=True) <= 30 for _ in range(50))


def test_the_timer_is_exact() -> None:
    """What is due sooner than the poll is waited for to the moment."""
    assert backoff().pause(3.2, verified=True) == 3.2


def test_something_stepped_over_is_looked_for_soon_and_then_every_second() -> None:
    """0 means that a claim could start something now: a row held for a moment costs little, one held for long less."""
    stepping = backoff()
    pauses = [stepping.pause(0, verified=True) for _ in range(100)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.5 <= pause <= 1 for pause in pauses[10:])
    stepping.worked()
    assert stepping.pause(0, verified=True) <= 0.1


def test_the_deaf_poll_from_the_least_to_the_most_and_begin_anew_after_work() -> None:
    """Pauses double with jitter up to poll-max-backoff; a task that was found makes them short again."""
    deaf = backoff()
    pauses = [deaf.pause(None, verified=False) for _ in range(100)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(2.5 <= pause <= 5 for pause in pauses[10:])
    deaf.worked()
    assert deaf.pause(None, verified=False) <= 0.1


def test_a_ring_before_the_wait_is_not_lost() -> None:
    """Lower, look, wait: who rings during the look ends the wait at once."""

    async def scenario() -> bool:
        wake_flag = WakeFlag()
        wake_flag.clear()
        wake_flag.notify()
        return await wake_flag.wait(5)

    assert asyncio.run(scenario())
