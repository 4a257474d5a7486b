"""The pauses of the claim loop."""

from __future__ import annotations

from datetime import timedelta

from reproq_listen.worker.polling import PollBackoff


def backoff() -> PollBackoff:
    return PollBackoff(timedelta(milliseconds=100), timedelta(seconds=5))


def test_poll_backoff_with_listen_polls_every_half_minute() -> None:
    """Nothing is known ahead and LISTEN works: a poll every 27 to 30 seconds."""
    assert all(27 <= backoff().pause(None, is_listening=True) <= 30 for _ in range(50))


def test_poll_backoff_waits_exactly_until_the_next_wake() -> None:
    """A task that is due before the next poll ends the pause to the moment."""
    assert backoff().pause(3.2, is_listening=True) == 3.2


def test_poll_backoff_retries_a_claimable_task_soon_and_then_every_second() -> None:
    """0 means that a task is claimable: a row locked for a moment costs little, one locked for long costs less."""
    stepping = backoff()
    pauses = [stepping.pause(0, is_listening=True) for _ in range(100)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.5 <= pause <= 1 for pause in pauses[10:])
    stepping.reset()
    assert stepping.pause(0, is_listening=True) <= 0.1


def test_poll_backoff_without_listen_grows_from_min_to_max_until_reset() -> None:
    """Pauses double with jitter up to --poll-max-backoff; a claimed task makes them short again."""
    polling = backoff()
    pauses = [polling.pause(None, is_listening=False) for _ in range(100)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(2.5 <= pause <= 5 for pause in pauses[10:])
    polling.reset()
    assert polling.pause(None, is_listening=False) <= 0.1
