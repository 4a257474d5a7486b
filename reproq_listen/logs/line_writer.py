"""Lines to a descriptor, without ever waiting for their reader: a blocked log never blocks the worker."""

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
"""Bytes kept for a slow reader."""


class LineWriter:
    """Writes lines in order. Threads may share it.

    `write` writes the line itself if the descriptor is ready. If not, a thread writes the kept lines until none is
    left. Lines beyond MAX_BYTES are dropped, and so are all later ones until the kept ones are written; then one line,
    `line_for_dropped` of their number, takes their place.
    """

    def __init__(self, fd: int, line_for_dropped: Callable[[int], str]) -> None:
        """The descriptor stays the caller's. Lines that it refuses (no reader, disk full) are lost."""
        self._fd = fd
        self._line_for_dropped = line_for_dropped
        mode = os.fstat(fd).st_mode
        # A ready pipe takes PIPE_BUF bytes without blocking. A terminal makes no such promise.
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
        """Write a line, or keep it for the thread. `line` has no newline. False: it was dropped."""
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
        """Wait at most `seconds` until all lines are written. False: some are not."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._kept, seconds)

    def _start(self) -> None:
        with suppress(RuntimeError):  # no thread can be started: the next line tries again
            thread = threading.Thread(target=self._write_kept, name="log", daemon=True)
            thread.start()
            self._thread = thread

    def _write_kept(self) -> None:
        while True:
            with self._changed:
                if not self._kept and self._dropped:
                    self._kept.append(f"{self._line_for_dropped(self._dropped)}\n".encode())
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
            return 0  # another process made the shared descriptor non-blocking, and filled it
        except OSError:
            return len(data)

    def _forget(self, count: int) -> None:
        """Remove the first `count` bytes of the first line."""
        rest = self._kept[0][count:]
        self._size -= count
        if rest:
            self._kept[0] = rest
        else:
            self._kept.popleft()
