"""How long the claim loop waits between two polls.

While LISTEN works a notification ends the wait, and SAFETY_POLL only bounds it. While LISTEN does not work the wait is
the poll: it grows from --poll-min-backoff to --poll-max-backoff. While tasks come in quick succession the worker polls
every few milliseconds and asks for no notifications: they cost producers more than that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

from reproq_listen.db.listener import SAFETY_POLL

QUICK_POLL = 0.005  # seconds between two claims while tasks come in quick succession
FULL = 0.02  # seconds without a free slot after which a worker needs no notification

_QUICK = 0.02  # seconds: a notification within this time after a claim is a quick one
_QUICK_IN_A_ROW = 16  # of these, or of full claims, begin quick polls
_MOST_IN_A_ROW = 256  # the same after quick polls that were of no use: doubled each time
_POOR_IN_A_ROW = 4  # claims with less than two tasks and free slots end them
_MAX_BLOCKED_PAUSE = 1.0  # seconds between two claims while a task is claimable and cannot be had


class PollBackoff:
    """Owns the growth of the pauses."""

    def __init__(self, min_pause: timedelta, max_pause: timedelta) -> None:
        self._min = min_pause.total_seconds()
        self._max = max_pause.total_seconds()
        self._idle_polls = 0

    def reset(self) -> None:
        """A claim returned tasks: start with short pauses again."""
        self._idle_polls = 0

    def pause(self, next_wake: float | None, *, is_listening: bool) -> float:
        """Seconds to wait, given the answer of `reproq_next_wake`.

        0 means that a task is claimable and the claim stepped over it: another session holds its row, or it must run
        alone and other tasks run here.
        """
        if next_wake is not None and next_wake <= 0:
            return min(self._backoff(), max(self._min, _MAX_BLOCKED_PAUSE))
        if is_listening:
            self._idle_polls = 0
            poll = SAFETY_POLL * random.uniform(0.9, 1.0)
        else:
            poll = self._backoff()
        return poll if next_wake is None else min(next_wake, poll)

    def _backoff(self) -> float:
        pause = min(self._min * float(2**self._idle_polls), self._max) * random.uniform(0.5, 1.0)
        self._idle_polls = min(self._idle_polls + 1, 30)
        return pause


class QuickPolls:
    """Owns the choice between quick polls and notifications, and calls `on_begin` and `on_end` when it changes.

    One producer that enqueues task after task is served best by notifications: quick polls find one task each, and end.
    Many producers that commit side by side are held up by notifications: quick polls find several tasks each.
    """

    def __init__(self, on_begin: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._on_begin = on_begin
        self._on_end = on_end
        self._needed = _QUICK_IN_A_ROW
        self._in_a_row = 0
        self._is_useful = False
        self.on = False

    def waited(self, seconds: float, *, is_notified: bool) -> None:
        """A wait for a notification is over."""
        self._count(is_quick=is_notified and seconds < _QUICK)

    def claimed(self, number: int, *, is_full: bool) -> None:
        """A claim has found this number of tasks."""
        if not self.on:
            if is_full:
                self._count(is_quick=True)
        elif is_full or number > 1:
            self._in_a_row = 0
            self._is_useful = True
        else:
            self._in_a_row += 1
            if self._in_a_row == _POOR_IN_A_ROW:
                self._needed = _QUICK_IN_A_ROW if self._is_useful else min(2 * self._needed, _MOST_IN_A_ROW)
                self._switch(on=False)
                self._on_end()

    def full(self) -> None:
        """There has been no free slot for a while."""
        if not self.on:
            self._begin()
        self._is_useful = True

    def _count(self, *, is_quick: bool) -> None:
        self._in_a_row = self._in_a_row + 1 if is_quick else 0
        if self._in_a_row >= self._needed:
            self._begin()

    def _begin(self) -> None:
        self._switch(on=True)
        self._on_begin()

    def _switch(self, *, on: bool) -> None:
        self.on = on
        self._in_a_row = 0
        self._is_useful = False
