"""The producer of a peer as a process: a line of JSON on stdin is a call, a line on stdout its answer.

Standard library only, since it runs in the environment of the peers, too.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Protocol

BATCH = 1_000  # tasks in one call that enqueues in bulk


class Producer(Protocol):
    """What each peer's file provides."""

    def send_time(self, path: str, label: str) -> None:
        """Enqueue one task that tells when it runs."""

    def one(self, number: int) -> None:
        """Enqueue no-op tasks, each with its own call and commit."""

    def many(self, number: int) -> None:
        """Enqueue no-op tasks with the call for many, BATCH at most in each."""

    def left(self) -> int:
        """Tasks that have not ended."""

    def clear(self) -> None:
        """Delete all tasks."""


def batches(number: int) -> list[int]:
    """The sizes of the calls that enqueue `number` tasks."""
    return [min(BATCH, number - done) for done in range(0, number, BATCH)]


def serve(producer: Producer, packages: Sequence[str]) -> None:
    """Answer the versions of the packages, then calls until stdin ends."""
    answer({"python": platform.python_version(), **{name: version(name) for name in packages}})
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        began = time.monotonic()
        result = getattr(producer, name)(*arguments)
        answer({"began": began, "seconds": time.monotonic() - began, "result": result})


def answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
