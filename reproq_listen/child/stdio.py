"""What tasks print in a pool child: sent to the worker line by line, with the task that printed it."""

import io
import os
import sys
from collections.abc import Callable

from reproq_listen.protocol import pool as protocol

WriteRecord = Callable[[int, bytes], None]
"""Takes the kind of a record and its body."""


class _CapturedStream(io.RawIOBase):
    """The raw end of a standard stream: its bytes become records once there is something that writes records.

    Until then, and in copies of the process that a task forks, they go to the real descriptor. So does the output of
    programs that a task starts: `fileno()` is the real descriptor's.
    """

    def __init__(self, kind: int, fd: int) -> None:
        super().__init__()
        self._kind = kind
        self._fd = fd
        self._write_record: WriteRecord | None = None
        self._owner = 0
        self.name = "<stdout>" if fd == 1 else "<stderr>"

    def capture(self, write_record: WriteRecord) -> None:
        self._write_record = write_record
        self._owner = os.getpid()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: object) -> int:
        block = bytes(data[: protocol.MAX_OUTPUT_BYTES])  # type: ignore[index]
        if self._write_record is None or os.getpid() != self._owner:
            return os.write(self._fd, block)
        self._write_record(self._kind, block)
        return len(block)


class StdioCapture:
    """Puts streams of our own in the place of sys.stdout and sys.stderr.

    It is made before the application is imported. So a handler of `logging` that keeps sys.stderr at import keeps our
    stream, and writes to the output of the running task.
    """

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._raw = _CapturedStream(protocol.STDOUT, 1), _CapturedStream(protocol.STDERR, 2)
        self._stdout, self._stderr = (
            io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
            for raw in self._raw
        )
        self.before_task()

    def capture(self, write_record: WriteRecord) -> None:
        """From now on, in this process, hand over what is printed."""
        for raw in self._raw:
            raw.capture(write_record)

    def before_task(self) -> None:
        """Put the streams into their place, whatever the last task has put there."""
        sys.stdout, sys.stderr = self._stdout, self._stderr

    def flush(self) -> None:
        """Hand over what the running task has written and not flushed."""
        if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
            _flush(sys.stdout, sys.stderr)  # the task's own objects may write to our streams
        _flush(self._stdout, self._stderr)

    def are_closed(self) -> bool:
        """Whether a task has closed or detached one of the streams."""
        try:
            return self._stdout.closed or self._stderr.closed
        except ValueError:  # detached
            return True


def _flush(*streams: object) -> None:
    for stream in streams:
        try:
            stream.flush()  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001, S112 - closed, detached, None, or the task's own object
            continue
