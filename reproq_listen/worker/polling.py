"""How long the claim loop sleeps when a claim found nothing more."""

from __future__ import annotations

import random
from datetime import timedelta

from reproq_listen.db.listener import SAFETY_POLL

_MAX_STEPPED_OVER_PAUSE = 1.0  # seconds between looks for what is claimable and cannot be had


class PollBackoff:
    """How long to sleep when a look found nothing more."""

    def __init__(self, least: timedelta, most: timedelta) -> None:
        self._least = least.total_seconds()
        self._most = most.total_seconds()
        self._idle_polls = 0

    def worked(self) -> None:
        """There was something: begin with short pauses again."""
        self._idle_polls = 0

    def pause(self, next_wake: float | None, *, verified: bool) -> float:
        """Seconds to sleep, given what `reproq_next_wake` said.

        0 means that something is claimable which the claim stepped over: somebody holds its row, for a moment or for
        long, or it must run alone and there is other work here.
        """
        if next_wake is not None and next_wake <= 0:
            return min(self._backed_off(), max(self._least, _MAX_STEPPED_OVER_PAUSE))
        if verified:
            self._idle_polls = 0
            poll = SAFETY_POLL * random.uniform(0.9, 1.0)
        else:
            poll = self._backed_off()
        return poll if next_wake is None else min(next_wake, poll)

    def _backed_off(self) -> float:
        pause = min(self._least * float(2**self._idle_polls), self._most) * random.uniform(0.5, 1.0)
        self._idle_polls = min(self._idle_polls + 1, 30)
        return pause
