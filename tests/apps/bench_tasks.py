"""Tasks that do nothing, or note when they started: what is measured is everything around them."""

from __future__ import annotations

import time


def nothing() -> None:
    return None


def started_at() -> float:
    """The moment by a clock that all processes of the machine share."""
    return time.monotonic()


def take(seconds: float) -> None:
    time.sleep(seconds)
