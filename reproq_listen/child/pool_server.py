"""A child that serves many tasks: the pool forks it from its forkserver.

Tasks run one after another in the main thread, as in the main program of a process of their own. What a task leaves
behind is undone before the next one: see reset.py. A child that cannot be reset asks to be replaced.
"""

import _thread
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

from reproq_listen.child import runner
from reproq_listen.child.context import Stopped
from reproq_listen.child.memory import Memory
from reproq_listen.child.payload import RefusedError, Spec
from reproq_listen.child.reset import ProcessReset, move_high
from reproq_listen.child.result_pipe import ResultPipe
from reproq_listen.child.stdio import StdioCapture
from reproq_listen.protocol import pool as protocol
from reproq_listen.protocol.executor import ALLOW_ENV

TYPE_CHECKING = False  # the module typing costs a cold start more than all of this
if TYPE_CHECKING:
    from reproq_listen.child.requests import Requests

_CHUNK = 64 << 10


class _Settings:
    """The first message of the worker: JSON behind its length."""

    def __init__(self, worker: socket.socket) -> None:
        """Raises ValueError if the worker has closed the socket."""
        (size,) = protocol.SETTINGS_HEADER.unpack(_receive_exactly(worker, protocol.SETTINGS_HEADER.size))
        settings = json.loads(_receive_exactly(worker, size))
        self.allowed = tuple(settings["allowed"])
        self.max_result_bytes = int(settings["max_result_bytes"])
        self.max_memory_bytes = int(settings["max_memory_bytes"])


def _receive_exactly(worker: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = worker.recv(size - len(data))
        if not more:
            raise ValueError("the worker has closed the socket before it sent settings")
        data += more
    return data


class Server:
    """Serves one child's tasks, from the settings until the worker closes the socket."""

    def __init__(self, worker: socket.socket, tokens: int, results: int, replies: int, stdio: StdioCapture) -> None:
        settings = _Settings(worker)
        self._worker = worker
        self._tokens = tokens
        self._results = ResultPipe(worker, results)
        self._replies = replies
        self._requests: Requests | None = None
        self._allowed = settings.allowed
        self._max_result_bytes = settings.max_result_bytes
        self._memory = Memory(settings.max_memory_bytes)
        self._token: int | None = None  # read from the pipe and not used yet
        self._slot = 0
        """Of the running task; 0 between two tasks."""
        self._is_interruptible = False  # SIGTERM may raise Stopped here
        self._is_stopped = False  # SIGTERM came where it may not
        self._owner = os.getpid()
        self._main_thread = _thread.get_ident()
        self._functions: dict[str, Callable[..., object]] = {}
        self._encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
        signal.signal(signal.SIGTERM, self._on_term)
        stdio.capture(self._write_for_task)
        self._stdio = stdio
        self._reset = ProcessReset(stdio)

    def serve(self) -> None:
        """Run what comes until the worker closes the socket. Raises Stopped when told to stop."""
        for number, sent, tasks in self._batches():
            reason = self._reset.before_batch()
            for slot, result_id, attempt, text in tasks:
                if reason is not None or not self._may_start(number):
                    break
                if time.monotonic() - sent > protocol.MAX_BATCH_AGE:
                    self._retire("the worker was stopped for too long", slot)
                    return
                self._run(slot, result_id, attempt, text)
                if self._is_stopped:
                    raise Stopped(128 + signal.SIGTERM)
                reason = self._reset.after_task() or self._memory.shortage()
            if reason is not None:
                self._retire(reason)
                return
            self._results.wake_worker()

    def _batches(self) -> Iterator[tuple[int, float, list[tuple[int, int, int, str]]]]:
        buffer = bytearray()
        while data := self._receive():
            buffer += data
            while len(buffer) >= protocol.BATCH_HEADER.size:
                size, number, sent = protocol.BATCH_HEADER.unpack_from(buffer)
                end = protocol.BATCH_HEADER.size + size
                if len(buffer) < end:
                    break
                batch = bytes(buffer[protocol.BATCH_HEADER.size : end])
                del buffer[:end]
                yield number, sent, _tasks_in(batch)

    def _receive(self) -> bytes:
        self._is_interruptible = True
        try:
            return self._worker.recv(_CHUNK)
        except ConnectionError:
            return b""
        finally:
            self._is_interruptible = False

    def _may_start(self, number: int) -> bool:
        """Read a token for a task of this batch. False if the rest of the batch was taken back."""
        if self._token is None:
            try:
                token = os.read(self._tokens, 1)
            except BlockingIOError:
                return False
            if not token:
                return False  # the worker is dead
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
            os._exit(1)  # the task forked, and the copy came back here
        self._stdio.flush()
        if len(body) > self._max_result_bytes:
            limit = self._max_result_bytes
            message = f"the result has {len(body)} bytes; the limit is {limit} (max_stdout_bytes)"
            kind, body = protocol.FAILED, runner.bad_envelope(RefusedError("invalid_result", message))
        self._slot = 0  # output from now on belongs to no task
        self._results.write(kind, slot, body, time.monotonic_ns() - wall, time.process_time_ns() - cpu)

    def _outcome(self, result_id: int, attempt: int, text: str) -> tuple[int, bytes]:
        """Run the task, and give the kind and body of its record. Raises only Stopped."""
        function = None
        try:
            self._is_interruptible = True
            spec = Spec(text)
            function = self._functions.get(spec.path)
            if function is None:
                function = self._functions[spec.path] = runner.resolve(spec.path, self._allowed)
            value, follow_ups = runner.call(function, spec, result_id, attempt, self)
            if follow_ups:
                body = f'{{"ok": true, "return": {self._encoded(value).decode()}, "enqueue": {follow_ups}}}'
                answer = protocol.ENQUEUES, body.encode()
            else:
                answer = protocol.RETURNED, b"null" if value is None else self._encoded(value)
            self._is_interruptible = False
        except Stopped:
            self._is_interruptible = False
            raise
        except BaseException as error:  # noqa: BLE001 - the one place where a task's end becomes a value
            self._is_interruptible = False
            self._memory.task_failed(error)
            return protocol.FAILED, runner.bad_envelope(error, function)
        return answer

    def _encoded(self, value: object) -> bytes:
        """Raises RefusedError (`invalid_result`) if the value is not JSON."""
        try:
            return self._encode(value).encode()
        except Stopped:
            raise
        except BaseException as error:
            raise runner.not_json(error, value) from error

    def send_metadata(self, body: bytes) -> None:
        """Send metadata of the running task at once."""
        if os.getpid() != self._owner:
            return
        self._write_for_task(protocol.METADATA, body)
        self._results.wake_worker()

    def requests(self) -> "Requests":
        """Give what asks the worker. Raises OSError in a copy of this process."""
        if os.getpid() != self._owner:
            raise OSError("only the process of a task can ask its worker")
        if self._requests is None:
            from reproq_listen.child.requests import Requests  # late: few tasks ask

            self._requests = Requests(self._send_request, self._replies)
        return self._requests

    def _send_request(self, body: bytes) -> None:
        """Raises OSError between two tasks: a thread of an earlier one may ask."""
        if not self._slot:
            raise OSError("the task has ended")
        self._write_for_task(protocol.REQUEST, body)
        self._results.wake_worker()

    def _write_for_task(self, kind: int, body: bytes) -> None:
        """Write a record of the running task. A stop does not interrupt it.

        Between two tasks the record is dropped: a destructor of any earlier task may have printed it.
        """
        slot = self._slot
        if not slot:
            return
        if _thread.get_ident() != self._main_thread:
            self._results.write(kind, slot, body)
            return
        before, self._is_interruptible = self._is_interruptible, False
        self._results.write(kind, slot, body)
        self._is_interruptible = before
        if before and self._is_stopped:
            raise Stopped(128 + signal.SIGTERM)

    def _retire(self, reason: str, slot: int = 0) -> None:
        """Ask to be replaced, and wait until the worker has taken back what it can, with the task of `slot`."""
        self._results.write(protocol.RETIRING, slot, reason.encode())
        self._results.wake_worker()
        while self._receive():
            pass

    def _on_term(self, _signal: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            os._exit(128 + signal.SIGTERM)
        if self._is_interruptible:
            raise Stopped(128 + signal.SIGTERM)
        self._is_stopped = True


def _tasks_in(batch: bytes) -> list[tuple[int, int, int, str]]:
    tasks = []
    place = 0
    while place < len(batch):
        slot, result_id, attempt, size = protocol.TASK.unpack_from(batch, place)
        place += protocol.TASK.size
        tasks.append((slot, result_id, attempt, batch[place : place + size].decode()))
        place += size
    return tasks


def prepare() -> Callable[[int, int, int, int], None]:
    """Capture the standard streams of this process, and give `serve`, to be called in a forked copy of it.

    `serve` takes the descriptors of socket, token pipe, result pipe and reply pipe (protocol/pool.py), and serves tasks
    until the worker closes the socket.
    """
    stdio = StdioCapture()

    def serve(worker: int, tokens: int, results: int, replies: int) -> None:
        os.environ.pop(ALLOW_ENV, None)  # it is in the settings, and not for tasks
        worker, tokens, results, replies = (move_high(fd) for fd in (worker, tokens, results, replies))
        connection = socket.socket(fileno=worker)
        connection.settimeout(None)  # the application may have set a default for all sockets
        server = Server(connection, tokens, results, replies, stdio)
        try:
            server.serve()
        except Stopped as stopped:
            runner.die_stopped(stopped)

    return serve
