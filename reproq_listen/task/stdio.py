"""What tasks print in a pool child: handed to the worker line by line, task by task."""

import io
import os
import sys
from collections.abc import Callable

from reproq_listen.protocol import pool as protocol


class _Stream(io.RawIOBase):
    """Where a standard stream ends: its bytes become records. Its descriptor is the real one, for programs the task
    starts. In a copy of the process that the task forked it is the real one, too."""

    def __init__(self, kind: int, fd: int, say: Callable[[int, bytes], None]) -> None:
        super().__init__()
        self._kind = kind
        self._fd = fd
        self._say = say
        self._owner = os.getpid()
        self.name = "<stdout>" if fd == 1 else "<stderr>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: object) -> int:
        block = bytes(data[: protocol.MAX_OUTPUT_BYTES])  # type: ignore[index]
        if os.getpid() != self._owner:
            return os.write(self._fd, block)
        self._say(self._kind, block)
        return len(block)


class StdioCapture:
    """Stands behind sys.stdout and sys.stderr. The objects stay what they were: whatever took hold of them while the
    application was imported (a handler of `logging`) writes to the running task's output as well."""

    def __init__(self, say: Callable[[int, bytes], None]) -> None:
        self._say = say
        self._found = sys.stdout, sys.stderr
        self._streams: dict[io.TextIOWrapper, int] = {}
        self._kept: list[object] = []
        for fd, streams in ((1, (sys.__stdout__, sys.stdout)), (2, (sys.__stderr__, sys.stderr))):
            for stream in streams:
                if stream not in self._streams and isinstance(stream, io.TextIOWrapper) and _fd_of(stream) == fd:
                    self._streams[stream] = fd
                    self._lead_here(stream)

    def flush(self) -> None:
        """Hand over what is left of the running task's lines. A stream that it has closed is opened again."""
        for put_there in (sys.stdout, sys.stderr):
            if put_there not in self._streams and put_there is not None:
                try:
                    put_there.flush()
                except Exception:  # noqa: BLE001, S112 - the task's own object
                    continue
        for stream in self._streams:
            try:
                stream.flush()
            except ValueError:  # closed, or detached
                self._lead_here(stream)

    def begin(self) -> None:
        """The next task has the standard streams, whatever the last one put in their place."""
        sys.stdout, sys.stderr = self._found

    def _lead_here(self, stream: io.TextIOWrapper) -> None:
        fd = self._streams[stream]
        raw = _Stream(protocol.STDOUT if fd == 1 else protocol.STDERR, fd, self._say)
        try:
            buffer = stream.buffer
        except ValueError:
            buffer = None
        if isinstance(buffer, io.BufferedWriter) and not buffer.closed:
            self._kept.append(buffer.raw)  # it may close its descriptor when it goes
            buffer.__init__(raw)  # type: ignore[misc]
        else:
            buffer = io.BufferedWriter(raw)
        stream.__init__(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[misc]


def _fd_of(stream: io.TextIOWrapper) -> int:
    try:
        return stream.fileno()
    except (ValueError, OSError):
        return -1
