"""Lines to a descriptor, without ever waiting for whoever reads them: a log that stands still stops no worker."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

MAX_BYTES = 1 << 20
"""So much is kept for a reader that does not keep up."""


class LineWriter:
    """Writes lines in their order. May be used by several threads.

    A line is written where it is handed over, if the reader takes it at once. If not, a thread takes over until nothing
    is left. What is beyond MAX_BYTES is dropped, and so is all that follows until the rest is written; then the line
    that `gap` gives for the number of dropped ones stands in their place.
    """

    def __init__(self, fd: int, gap: Callable[[int], str]) -> None:
        """The descriptor stays the caller's. What it refuses (its reader is gone, the disk is full) is lost."""
        self._fd = fd
        self._gap = gap
        mode = os.fstat(fd).st_mode
        # A pipe that is ready takes this much without a wait; of a terminal nobody knows how much it takes.
        self._piece = sys.maxsize if stat.S_ISREG(mode) else select.PIPE_BUF
        self._is_terminal = os.isatty(fd)
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)
        self._changed = threading.Condition()
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> bool:
        """Hand over a line, without its newline. False: it was dropped."""
        data = f"{line}\n".encode()
        with self._changed:
            if self._dropped or (self._kept and self._size + len(data) > MAX_BYTES):
                self._dropped += 1
                return False
            self._kept.append(data)
            self._size += len(data)
            if self._thread is None:
                while self._kept and not self._is_terminal and self._ready.poll(0):
                    self._forget(self._put(self._kept[0]))
                if self._kept:
                    self._start()
        return True

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, at most so long. False: it is not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._kept, seconds)

    def _start(self) -> None:
        with suppress(RuntimeError):  # there is no thread to be had: the next line tries again
            thread = threading.Thread(target=self._write_kept, name="log", daemon=True)
            thread.start()
            self._thread = thread

    def _write_kept(self) -> None:
        while True:
            with self._changed:
                if not self._kept and self._dropped:
                    self._kept.append(f"{self._gap(self._dropped)}\n".encode())
                    self._size = len(self._kept[0])
                    self._dropped = 0
                if not self._kept:
                    self._thread = None
                    self._changed.notify_all()
                    return
                data = self._kept[0]
            self._ready.poll()
            written = self._put(data)
            with self._changed:
                self._forget(written)

    def _put(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data[: self._piece])
        except BlockingIOError:
            return 0  # somebody who shares it has made it so, and filled it
        except OSError:
            return len(data)

    def _forget(self, count: int) -> None:
        """So many bytes of the first line are done with."""
        rest = self._kept[0][count:]
        self._size -= count
        if rest:
            self._kept[0] = rest
        else:
            self._kept.popleft()
