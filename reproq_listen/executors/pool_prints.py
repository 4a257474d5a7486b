"""What tasks print in a pool child: handed to the worker line by line, task by task, within bounds."""

import io
import sys
from collections.abc import Callable

from reproq_listen.executors import pool_protocol as protocol

_KEPT_BYTES = 64 << 10
"""Of each stream of one task. What goes beyond is dropped."""


class _Stream(io.RawIOBase):
    """A standard stream whose bytes become records. Its descriptor is the real one, for programs the task starts."""

    def __init__(self, kind: int, fd: int, say: Callable[[int, bytes], None]) -> None:
        super().__init__()
        self._kind = kind
        self._fd = fd
        self._say = say
        self.room = _KEPT_BYTES

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        kept = block[: self.room]
        self.room -= len(kept)
        if kept:
            self._say(self._kind, kept)
        return len(block)


class Prints:
    """Stands in for sys.stdout and sys.stderr."""

    def __init__(self, say: Callable[[int, bytes], None]) -> None:
        self._raw = [_Stream(protocol.PRINTED, 1, say), _Stream(protocol.COMPLAINED, 2, say)]
        self._out, self._err = (
            io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)
            for raw in self._raw
        )
        self.begin()

    def flush(self) -> None:
        """Hand over what is left of the running task's lines."""
        for stream in (self._out, self._err):
            if not stream.closed:
                stream.flush()

    def begin(self) -> None:
        """The next task has the standard streams, whatever the last one put in their place, and all their room."""
        sys.stdout = self._out
        sys.stderr = self._err
        for raw in self._raw:
            raw.room = _KEPT_BYTES

    @property
    def is_closed(self) -> bool:
        """Whether a task has closed a standard stream, which then is lost for good."""
        return self._out.closed or self._err.closed
