"""The pauses of the claim loop."""

from __future__ import annotations

from datetime import timedelta

from reproq_listen.worker.polling import PollBackoff, QuickPolls


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


class Choice:
    """Quick polls with a record of what was wanted."""

    def __init__(self) -> None:
        self.wants: list[bool] = []
        self.polls = QuickPolls(lambda: self.wants.append(False), lambda: self.wants.append(True))

    def notified_until_on(self) -> int:
        """The number of quick notifications that begin quick polls."""
        number = 0
        while not self.polls.on:
            self.polls.waited(0.001, is_notified=True)
            number += 1
        return number

    def claimed(self, *numbers: int) -> None:
        for number in numbers:
            self.polls.claimed(number, is_full=False)


def test_quick_polls_begin_with_quick_notifications_and_end_with_poor_claims() -> None:
    """Sixteen notifications in a row, each within 20 ms, and four claims with less than two tasks in a row."""
    choice = Choice()
    for _ in range(15):
        choice.polls.waited(0.001, is_notified=True)
    choice.polls.waited(0.001, is_notified=False)
    assert choice.notified_until_on() == 16
    choice.claimed(5, 0, 1, 0, 2, 0, 0, 1)
    assert choice.polls.on
    assert choice.wants == [False]
    choice.claimed(0)
    assert not choice.polls.on
    assert choice.wants == [False, True]


def test_quick_polls_of_no_use_are_tried_less_and_less() -> None:
    """One producer that enqueues task after task: twice as many notifications until the next try, 256 at most."""
    choice = Choice()
    tries = []
    for _ in range(6):
        tries.append(choice.notified_until_on())
        choice.claimed(1, 1, 0, 1)
    assert tries == [16, 32, 64, 128, 256, 256]
    choice.notified_until_on()
    choice.claimed(9, 0, 0, 0, 0)
    assert choice.notified_until_on() == 16


def test_quick_polls_begin_with_full_claims_or_without_a_free_slot() -> None:
    """A worker that is full finds tasks without notifications."""
    choice = Choice()
    for _ in range(16):
        choice.polls.claimed(1, is_full=True)
    assert choice.polls.on
    choice.claimed(0, 0, 0, 0)
    choice.polls.full()
    choice.polls.full()
    assert choice.wants == [False, True, False]
