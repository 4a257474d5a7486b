"""The way from a running task back to its worker: notes while it runs, and one envelope at its end.

Standard library only, and little of it: the executor starts cold.
"""

import _thread
import os
import signal
import sys
from types import FrameType

from reproq_listen.protocol import executor as protocol
from reproq_listen.task.context import Stopped


class Channel:
    """The way the envelope leaves this process. Taken before any code of the task runs.

    The task may close or reuse descriptors and may fork. So nothing is written unless the number still means
    the same open file, and only the process that took the channel writes to it.
    """

    def __init__(self) -> None:
        name = os.environ.pop(protocol.RESULT_FD_ENV, None)
        self._framed = name is not None
        if name is not None:
            self._fd = int(name)
            os.set_inheritable(self._fd, False)  # noqa: FBT003 - positional only
        else:
            self._fd = os.dup(1)
            os.dup2(2, 1)  # what the task prints must not mix with the envelope
        self._identity = self._identify()
        self._owner = os.getpid()
        self._lock = _thread.allocate_lock()
        self._main_thread = _thread.get_ident()
        self._is_over = False
        self._is_noting = False
        self._is_stopped = False

    def _identify(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def is_ours(self) -> bool:
        """False in a copy of this process that the task forked."""
        return os.getpid() == self._owner

    def send(self, body: bytes) -> None:
        """Write the envelope, whole; nothing comes after it. Raises OSError if the channel is gone."""
        with self._lock:
            self._is_over = True
            self._write(protocol.frame(body) if self._framed else body + b"\n")

    def note(self, body: bytes) -> None:
        """Hand over metadata of the running task. What cannot be delivered is dropped."""
        if not self._framed or not self.is_ours():
            return
        if _thread.get_ident() != self._main_thread:
            self._write_note(body)
            return
        self._is_noting = True  # this is the thread that a stop interrupts
        self._write_note(body)
        self._is_noting = False
        if self._is_stopped:
            raise Stopped(128 + signal.SIGTERM)

    def _write_note(self, body: bytes) -> None:
        try:
            with self._lock:  # a task's threads may write, too, and may outlive it
                if not self._is_over:
                    self._write(protocol.frame(body, protocol.NOTE_MAGIC))
        except OSError as error:
            sys.stderr.write(f"the task's metadata could not be handed over: {error}\n")

    def _write(self, frame: bytes) -> None:
        if self._identify() != self._identity:
            raise OSError("the task has reused the descriptor of its result")
        data = memoryview(frame)
        while data:
            data = data[os.write(self._fd, data) :]

    def on_term(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler of SIGTERM. Never tears a frame apart."""
        self._is_stopped = True
        if not self._is_noting:
            raise Stopped(128 + signal.SIGTERM)
