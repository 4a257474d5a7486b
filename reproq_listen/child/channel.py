"""How a running task reaches its worker: metadata and requests while it runs, and one envelope at its end.

Few imports, all of the standard library: the executor starts cold.
"""

import _thread
import os
import signal
import sys
from types import FrameType

from reproq_listen.child.context import Stopped
from reproq_listen.protocol import executor as protocol

TYPE_CHECKING = False  # the module typing costs a cold start more than all of this
if TYPE_CHECKING:
    from reproq_listen.child.requests import Requests


class Channel:
    """The descriptor on which the envelope leaves this process. Opened before any code of the task runs.

    The task may close or reuse descriptors, and may fork. So nothing is written unless the number still means the same
    open file, and only the process that opened the channel writes to it.
    """

    def __init__(self, result_fd: int | None) -> None:
        """`result_fd`: the socket for frames. None: its number is in the environment, or stdout gets the envelope."""
        if result_fd is None and (name := os.environ.pop(protocol.RESULT_FD_ENV, None)) is not None:
            result_fd = int(name)
            os.set_inheritable(result_fd, False)  # noqa: FBT003 - positional only
        self._framed = result_fd is not None
        if result_fd is not None:
            self._fd = result_fd
        else:
            self._fd = os.dup(1)
            os.dup2(2, 1)  # what the task prints must not mix with the envelope
        self._identity = self._identify()
        self._owner = os.getpid()
        self._lock = _thread.allocate_lock()
        self._main_thread = _thread.get_ident()
        self._is_over = False
        self._is_writing = False
        self._is_stopped = False
        self._requests: Requests | None = None

    def _identify(self) -> tuple[int, int]:
        status = os.fstat(self._fd)
        return status.st_dev, status.st_ino

    def is_ours(self) -> bool:
        """False in a copy of this process that the task has forked."""
        return os.getpid() == self._owner

    def send(self, body: bytes) -> None:
        """Write the whole envelope; nothing comes after it. Raises OSError if the channel is gone."""
        with self._lock:
            self._is_over = True
            self._write(protocol.frame(body) if self._framed else body + b"\n")

    def send_metadata(self, body: bytes) -> None:
        """Send metadata of the running task. Undeliverable metadata is dropped. May raise Stopped."""
        if not self._framed or not self.is_ours():
            return
        try:
            self._write_whole(protocol.frame(body, protocol.METADATA_MAGIC))
        except OSError as error:
            sys.stderr.write(f"the task's metadata could not be sent: {error}\n")

    def requests(self) -> "Requests":
        """Give what asks the worker. Raises OSError where there is no worker of ours, or this is a copy of its task."""
        if not self._framed or not self.is_ours():
            raise OSError("only the process of a task of reproq-listen can ask its worker")
        if self._requests is None:
            from reproq_listen.child.requests import Requests  # late: few tasks ask

            self._requests = Requests(self._send_request, self._fd)
        return self._requests

    def _send_request(self, body: bytes) -> None:
        """Raises OSError. May raise Stopped."""
        self._write_whole(protocol.frame(body, protocol.REQUEST_MAGIC))

    def _write_whole(self, frame: bytes) -> None:
        """Write a frame before the last one; after that, nothing. Raises OSError. May raise Stopped."""
        if _thread.get_ident() != self._main_thread:
            self._write_early(frame)
            return
        self._is_writing = True  # a stop interrupts this thread
        try:
            self._write_early(frame)
        finally:
            self._is_writing = False
            if self._is_stopped:
                raise Stopped(128 + signal.SIGTERM)

    def _write_early(self, frame: bytes) -> None:
        with self._lock:  # threads of the task may write too, and may outlive it
            if not self._is_over:
                self._write(frame)

    def _write(self, frame: bytes) -> None:
        if self._identify() != self._identity:
            raise OSError("the task has reused the descriptor of its result")
        data = memoryview(frame)
        while data:
            data = data[os.write(self._fd, data) :]

    def on_term(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGTERM: raise Stopped, but never in the middle of a frame."""
        self._is_stopped = True
        if not self._is_writing:
            raise Stopped(128 + signal.SIGTERM)
