"""The pipe on which a pool child writes records, and when the worker is woken to read it."""

import _thread
import os
import select
import socket
import time
from collections import deque

from reproq_listen.protocol import pool as protocol

_MAX_WAKE_DELAY_NS = 2_000_000
"""The worker learns of a task's end at most this much later, as long as the child is between tasks."""


class ResultPipe:
    """Writes whole records, from any thread. Wakes the worker for several records at once."""

    def __init__(self, worker: socket.socket, pipe: int) -> None:
        self._worker = worker
        self._pipe = pipe
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLOUT)
        self._unwritten: deque[bytes] = deque()
        self._lock = _thread.allocate_lock()
        self._writing_thread = 0
        self._must_wake = False
        """The pipe holds something that the worker was not woken for."""
        self._unread_since = 0

    def write(self, kind: int, slot: int, body: bytes, wall: int = 0, cpu: int = 0) -> None:
        """Write a whole record, even if this interrupts another: destructors and signal handlers may print."""
        self._unwritten.append(protocol.RECORD.pack(kind, slot, wall, cpu, len(body)) + body)
        if self._writing_thread == _thread.get_ident():
            return  # a caller further up the stack writes it
        with self._lock:  # threads of a task may print too
            self._writing_thread = _thread.get_ident()
            try:
                self._write_all()
            finally:
                self._writing_thread = 0
        now = time.monotonic_ns()
        if not self._must_wake:
            self._must_wake = True
            self._unread_since = now
        elif now - self._unread_since > _MAX_WAKE_DELAY_NS:
            self.wake_worker()

    def _write_all(self) -> None:
        while self._unwritten:
            record = self._unwritten[0]
            try:
                size = os.write(self._pipe, record)
            except BlockingIOError:  # it is full: the worker must empty it
                self._must_wake = True
                self.wake_worker()
                self._poll.poll()
            else:
                if size == len(record):
                    self._unwritten.popleft()
                else:
                    self._unwritten[0] = record[size:]

    def wake_worker(self) -> None:
        """Have the worker read the pipe, if there is anything that it was not woken for."""
        if self._must_wake:
            self._must_wake = False
            try:
                self._worker.send(protocol.WAKE_BYTE)
            except ConnectionError:
                return  # the worker is dead: the next read from the socket shows it
