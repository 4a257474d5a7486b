"""How long the claim loop waits between two polls.

While LISTEN works a notification ends the wait, and SAFETY_POLL only bounds it. While LISTEN does not work the wait is
the poll: it grows from --poll-min-backoff to --poll-max-backoff.
"""

from __future__ import annotations

import random
from datetime import timedelta

from reproq_listen.db.listener import SAFETY_POLL

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
