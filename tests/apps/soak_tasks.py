"""Tasks of the soak. Each execution keeps a journal: that it has begun, that it is alive, that it is done.

A journal is a file for each process, named by its id; times are seconds of the system's monotonic clock.
"""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

from reproq_listen.child.context import TaskContext

_TICK = 0.02  # seconds
_LONGER = 1.5  # seconds


class Journal:
    """What one execution writes down."""

    def __init__(self, folder: str, context: TaskContext) -> None:
        self._file = os.open(f"{folder}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._write("start", context.result_id, context.attempt, *_ancestors())

    def live(self, seconds: float) -> None:
        """Be alive for `seconds`, and write so all the time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(_TICK, left))
            self._write("alive")

    def end(self) -> None:
        self._write("end")
        os.close(self._file)

    def _write(self, *words: object) -> None:
        # One write a line: a line that SIGKILL cuts off is not there at all.
        os.write(self._file, " ".join(map(str, (time.monotonic(), *words))).encode() + b"\n")


def work(context: TaskContext, folder: str, seconds: float, number: int) -> int:
    """Takes its time and gives twice its number. Later attempts take longer: the first may still be about to end."""
    journal = Journal(folder, context)
    journal.live(seconds + _LONGER if context.attempt > 1 else seconds)
    journal.end()
    return 2 * number


def resist(context: TaskContext, folder: str, seconds: float, number: int) -> int:
    """As `work`, and only SIGKILL can stop it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return work(context, folder, seconds, number)


def resist_for_ever_first(context: TaskContext, folder: str, seconds: float, number: int) -> int:
    """As `resist`; its first attempt never ends by itself."""
    return resist(context, folder, seconds if context.attempt > 1 else math.inf, number)


def fail_first(context: TaskContext, folder: str, seconds: float, number: int) -> int:
    """As `work`; its first attempts fail."""
    if context.attempt < 3:
        Journal(folder, context).end()
        raise ValueError("on purpose")
    return work(context, folder, seconds, number)


def crash_first(context: TaskContext, folder: str, seconds: float, number: int) -> int:
    """As `work`; its first attempts end without an answer."""
    if context.attempt < 3:
        Journal(folder, context).end()
        os._exit(3)
    return work(context, folder, seconds, number)


def fail(context: TaskContext, folder: str, seconds: float, _number: int) -> None:
    """Never succeeds."""
    journal = Journal(folder, context)
    journal.live(seconds)
    journal.end()
    raise ValueError("on purpose")


def _ancestors() -> list[int]:
    """The parent of this process, its parent, and so on: one of them is the worker."""
    found: list[int] = []
    pid = os.getppid()
    while pid > 1:
        found.append(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found
