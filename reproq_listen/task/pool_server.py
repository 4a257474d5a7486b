"""A child that serves many tasks: what the pool forks from its template. Standard library only.

Tasks run one after another in the main thread, as they would in the main program of a process of their own. What
one leaves behind must not reach the next: see pool_leftovers.py. A child that cannot be made clean again asks to be
replaced.
"""

import _thread
import json
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType

from reproq_listen.protocol import pool as protocol
from reproq_listen.protocol.executor import ALLOW_ENV
from reproq_listen.task import runner as executor
from reproq_listen.task.context import Stopped
from reproq_listen.task.memory import Memory
from reproq_listen.task.payload import RefusedError, Spec
from reproq_listen.task.reset import ProcessReset, out_of_the_way
from reproq_listen.task.stdio import StdioCapture

_CHUNK = 64 << 10
_RING_AFTER_NS = 2_000_000
"""An end waits at most so long for others to be told together, as long as the child is between tasks."""


class Greeting:
    """The first message on the link: JSON behind its length."""

    def __init__(self, link: socket.socket) -> None:
        """Raises ValueError if there is none."""
        (size,) = protocol.GREETING_HEADER.unpack(_exactly(link, protocol.GREETING_HEADER.size))
        said = json.loads(_exactly(link, size))
        self.allowed = tuple(said["allowed"])
        self.max_result_bytes = int(said["max_result_bytes"])
        self.max_memory_bytes = int(said["max_memory_bytes"])


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        if not more:
            raise ValueError("the worker has closed the link before its greeting")
        data += more
    return data


class Server:
    """One child's conversation with its worker, from greeting to farewell."""

    def __init__(self, link: socket.socket, tokens: int, results: int) -> None:
        greeting = Greeting(link)
        self._link = link
        self._tokens = tokens
        self._results = results
        self._allowed = greeting.allowed
        self._max_result_bytes = greeting.max_result_bytes
        self._memory = Memory(greeting.max_memory_bytes)
        self._token: int | None = None  # taken from the pipe, and not yet used
        self._is_silent = False  # something is in the result pipe that the worker was not told of
        self._silent_since = 0
        self._writable = select.poll()
        self._writable.register(self._results, select.POLLOUT)
        self._slot = 0
        """Of the running task; 0 between two tasks."""
        self._interruptible = False  # SIGTERM may raise Stopped here
        self._told_to_stop = False  # it came where it may not
        self._owner = os.getpid()
        self._main_thread = _thread.get_ident()
        self._lock = _thread.allocate_lock()
        self._writer = 0
        self._unwritten: deque[bytes] = deque()
        self._functions: dict[str, Callable[..., object]] = {}
        self._encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
        signal.signal(signal.SIGTERM, self._on_term)
        self._prints = StdioCapture(self._say)
        self._leftovers = ProcessReset(self._prints)

    def serve(self) -> None:
        """Run what comes until the worker closes the link. Raises Stopped when told to stop."""
        for number, sent, tasks in self._frames():
            reason = self._leftovers.before_batch()
            for slot, result_id, attempt, text in tasks:
                if reason is not None or not self._may_start(number):
                    break
                if time.monotonic() - sent > protocol.MAX_FRAME_AGE:
                    self._retire("its worker stood still", slot)
                    return
                self._run(slot, result_id, attempt, text)
                if self._told_to_stop:
                    raise Stopped(128 + signal.SIGTERM)
                reason = self._leftovers.after_task() or self._memory.look()
            if reason is not None:
                self._retire(reason)
                return
            self._ring()

    def _frames(self) -> Iterator[tuple[int, float, list[tuple[int, int, int, str]]]]:
        buffer = bytearray()
        while data := self._receive():
            buffer += data
            while len(buffer) >= protocol.BATCH_HEADER.size:
                size, number, sent = protocol.BATCH_HEADER.unpack_from(buffer)
                end = protocol.BATCH_HEADER.size + size
                if len(buffer) < end:
                    break
                frame = bytes(buffer[protocol.BATCH_HEADER.size : end])
                del buffer[:end]
                yield number, sent, _tasks_in(frame)

    def _receive(self) -> bytes:
        self._interruptible = True
        try:
            return self._link.recv(_CHUNK)
        except ConnectionError:
            return b""
        finally:
            self._interruptible = False

    def _may_start(self, number: int) -> bool:
        """Take a token for a task of this frame. False: the rest of the frame was taken back."""
        if self._token is None:
            try:
                token = os.read(self._tokens, 1)
            except BlockingIOError:
                return False
            if not token:
                return False  # the worker is gone
            self._token = token[0]
        if self._token != number:
            return False
        self._token = None
        return True

    def _run(self, slot: int, result_id: int, attempt: int, text: str) -> None:
        self._slot = slot
        wall, cpu = time.monotonic_ns(), time.process_time_ns()
        kind, body = self._outcome(result_id, attempt, text)
        if os.getpid() != self._owner:
            os._exit(1)  # a copy that the task forked came back here
        self._prints.flush()
        if len(body) > self._max_result_bytes:
            limit = self._max_result_bytes
            message = f"the result has {len(body)} bytes; the limit is {limit} (max_stdout_bytes)"
            kind, body = protocol.FAILED, executor.bad_envelope(RefusedError("invalid_result", message))
        self._slot = 0  # whatever is said from now on is no task's
        self._write(kind, slot, body, time.monotonic_ns() - wall, time.process_time_ns() - cpu)

    def _outcome(self, result_id: int, attempt: int, text: str) -> tuple[int, bytes]:
        """Run the task. Raises only Stopped."""
        try:
            self._interruptible = True
            spec = Spec(text)
            function = self._functions.get(spec.path)
            if function is None:
                function = self._functions[spec.path] = executor.resolve(spec.path, self._allowed)
            value = executor.call(function, spec, result_id, attempt, self._note)
            answer = protocol.RETURNED, b"null" if value is None else self._encoded(value)
            self._interruptible = False
        except Stopped:
            self._interruptible = False
            raise
        except BaseException as error:  # noqa: BLE001 - the one place where a task's end becomes a value
            self._interruptible = False
            self._memory.note(error)
            return protocol.FAILED, executor.bad_envelope(error, __file__)
        return answer

    def _encoded(self, value: object) -> bytes:
        """Raises RefusedError (`invalid_result`) if the value is not JSON."""
        try:
            return self._encode(value).encode()
        except Stopped:
            raise
        except BaseException as error:
            raise executor.not_json(error) from error

    def _note(self, body: bytes) -> None:
        """Say something of the running task, at once."""
        if os.getpid() != self._owner:
            return
        self._say(protocol.METADATA, body)
        self._ring()

    def _say(self, kind: int, body: bytes) -> None:
        """Write a record while the task runs. A stop does not tear it apart. Between two tasks nothing is said: it
        may be garbage of any of them that speaks."""
        slot = self._slot
        if not slot:
            return
        if _thread.get_ident() != self._main_thread:
            self._write(kind, slot, body)
            return
        before, self._interruptible = self._interruptible, False
        self._write(kind, slot, body)
        self._interruptible = before
        if before and self._told_to_stop:
            raise Stopped(128 + signal.SIGTERM)

    def _write(self, kind: int, slot: int, body: bytes, wall: int = 0, cpu: int = 0) -> None:
        """Write a record, whole, also where it interrupts another: garbage and signal handlers print, too."""
        self._unwritten.append(protocol.RECORD.pack(kind, slot, wall, cpu, len(body)) + body)
        if self._writer == _thread.get_ident():
            return  # this thread is about it further up
        with self._lock:  # a task's threads may print, too
            self._writer = _thread.get_ident()
            try:
                self._write_all()
            finally:
                self._writer = 0
        now = time.monotonic_ns()
        if not self._is_silent:
            self._is_silent = True
            self._silent_since = now
        elif now - self._silent_since > _RING_AFTER_NS:
            self._ring()

    def _write_all(self) -> None:
        while self._unwritten:
            record = self._unwritten[0]
            try:
                size = os.write(self._results, record)
            except BlockingIOError:  # full: the worker empties it when it hears the bell
                self._is_silent = True
                self._ring()
                self._writable.poll()
            else:
                if size == len(record):
                    self._unwritten.popleft()
                else:
                    self._unwritten[0] = record[size:]

    def _ring(self) -> None:
        """Have the worker look at the result pipe, if there is anything that it was not told of."""
        if self._is_silent:
            self._is_silent = False
            try:
                self._link.send(protocol.WAKE_BYTE)
            except ConnectionError:
                return  # the worker is gone: the next look at the link says so

    def _retire(self, reason: str, slot: int = 0) -> None:
        """Ask to be replaced, and wait until the worker has taken back what it can, `slot` with it."""
        self._write(protocol.RETIRING, slot, reason.encode())
        self._ring()
        while self._receive():
            pass

    def _on_term(self, _signal: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            os._exit(128 + signal.SIGTERM)
        if self._interruptible:
            raise Stopped(128 + signal.SIGTERM)
        self._told_to_stop = True


def _tasks_in(frame: bytes) -> list[tuple[int, int, int, str]]:
    tasks = []
    place = 0
    while place < len(frame):
        slot, result_id, attempt, size = protocol.TASK.unpack_from(frame, place)
        place += protocol.TASK.size
        tasks.append((slot, result_id, attempt, frame[place : place + size].decode()))
        place += size
    return tasks


def serve(link: int, tokens: int, results: int) -> None:
    """Serve tasks until the worker closes the link. All three are descriptors (protocol/pool.py)."""
    os.environ.pop(ALLOW_ENV, None)  # the greeting says it, and it is no business of the tasks
    link, tokens, results = (out_of_the_way(fd) for fd in (link, tokens, results))
    connection = socket.socket(fileno=link)
    connection.settimeout(None)  # the application may have given all sockets a limit
    server = Server(connection, tokens, results)
    try:
        server.serve()
    except Stopped as stopped:
        executor.die_stopped(stopped, __file__)
