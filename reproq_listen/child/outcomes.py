"""What a task raises to say how it should go on: try again, later, never, or not before an instant.

Few imports, all of the standard library: tasks import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta

_MAX_SECONDS = 100 * 365 * 86_400.0


class AskedError(Exception):
    """A wish of the task about its future; not a failure. Raise one of the classes below."""

    kind = ""
    """The kind of the outcome; SQL decides what follows from it."""

    def __init__(self, message: str, after: float | timedelta | None = None) -> None:
        super().__init__(message)
        self.after_seconds = None if after is None else _seconds(after)
        self.until: str | None = None


class Retry(AskedError):
    """Fail this attempt and try again: after the time given, or else after the usual pause.

    It counts as an attempt: after the last one the task is FAILED.
    """

    kind = "retry_asked"

    def __init__(self, reason: str = "", *, after: float | timedelta | None = None) -> None:
        """`after`: seconds, or a timedelta."""
        super().__init__(reason or "the task asked for another attempt", after)


class Snooze(AskedError):
    """Stop, and start from the beginning later. It does not count as an attempt. At most 1,000 times a task."""

    kind = "snoozed"

    def __init__(self, *, after: float | timedelta | None = None, until: datetime | None = None) -> None:
        """Give one of both. `after`: seconds, or a timedelta. `until`: with a time zone."""
        if (after is None) == (until is None):
            raise TypeError("Snooze takes either after or until")
        if until is not None and until.utcoffset() is None:
            raise ValueError(f"Snooze needs an instant with a time zone, not {until!r}: datetime.now(UTC), say")
        super().__init__("the task asked to be started later", after)
        self.until = None if until is None else until.isoformat()


class Discard(AskedError):
    """Fail for good, whatever attempts are left: another one cannot help."""

    kind = "discarded"

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "the task gave up")


class Throttled(AskedError):
    """Another service asked us to wait (HTTP 429): until then no worker starts a task of this path.

    It does not count as an attempt.
    """

    kind = "throttled"

    def __init__(self, *, after: float | timedelta) -> None:
        """`after`: seconds, or a timedelta."""
        super().__init__("the task asked that none of its path starts for a while", after)


class CompletedError(AskedError):
    """The task has completed in its own transaction. Ours, not for tasks."""

    kind = "completion_lost"

    def __init__(self) -> None:
        super().__init__("the task completed in a transaction of its own, and the database has lost that transaction")


def _seconds(after: float | timedelta) -> float:
    """Raises TypeError or ValueError."""
    seconds = float(after if isinstance(after, int | float) else after.total_seconds())
    if not 0.0 <= seconds <= _MAX_SECONDS:
        raise ValueError(f"after must be from 0 seconds to 100 years, not {after!r}")
    return seconds
