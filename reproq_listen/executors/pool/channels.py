"""The worker's ends of the channels to one pool child (protocol/pool.py). Nothing here blocks."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from reproq_listen.executors.process.pipes import OutputBuffer, PipeReader, ReplyWriter
from reproq_listen.model import CapturedOutput, ClaimedTask
from reproq_listen.protocol import pool as protocol
from reproq_listen.protocol.executor import REPLY_MAGIC, frame

_CHUNK = 64 << 10
_MAX_CHUNKS = 16
"""At a time: a child may write as fast as this reads."""
_RAW_OUTPUT_BYTES = 16 << 10


class ChildChannels:
    """Socket, token pipe, result pipe, reply pipe, and one pipe for what comes out of the child's descriptors 1 and 2.

    Owns our ends until `close`, and the child's ends until `child_started`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """`on_readable` is called when there may be records to read. Raises OSError, with nothing left open."""
        self._loop = loop
        self._on_readable = on_readable
        self._unsent = bytearray()
        self._records = bytearray()
        self._is_watching_results = False
        self._raw_output = OutputBuffer(_RAW_OUTPUT_BYTES, _RAW_OUTPUT_BYTES)
        with contextlib.ExitStack() as undo:
            self._childs = undo.enter_context(contextlib.ExitStack())
            self._ours = undo.enter_context(contextlib.ExitStack())
            self._socket, childs_socket = socket.socketpair()
            self._ours.callback(self._socket.close)
            self._childs.callback(childs_socket.close)
            self._socket.settimeout(0)
            # Both sides read tokens without blocking: they share one open file, and its mode.
            self._tokens, self._token_source = self._pipe(self._ours, self._ours)
            self._results, childs_results = self._pipe(self._ours, self._childs)
            raw_output, childs_output = self._pipe(self._ours, self._childs)
            childs_replies, replies = os.pipe()
            self._childs.callback(os.close, childs_replies)
            os.set_blocking(childs_replies, False)
            self._replies = ReplyWriter(loop, replies)
            self._ours.callback(self._replies.close)
            os.set_blocking(childs_results, False)
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._childs.callback(os.close, null)
            standard = (null, childs_output, childs_output)
            self.fds_for_child = (*standard, childs_socket.fileno(), self._tokens, childs_results, childs_replies)
            self._raw_output_reader = PipeReader(loop, os.dup(raw_output), lambda data: self._raw_output.feed(data))
            undo.pop_all()
        loop.add_reader(self._socket, self._receive)

    def _pipe(self, reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
        read, write = os.pipe()
        reader.callback(os.close, read)
        writer.callback(os.close, write)
        os.set_blocking(read, False)
        return read, write

    def child_started(self) -> None:
        """Close the child's ends: the child has its own copies."""
        self._childs.close()

    def send_settings(self, allowed: Sequence[str], max_result_bytes: int, max_memory_bytes: int) -> None:
        """Send what the child must know before its first task."""
        settings = {"allowed": allowed, "max_result_bytes": max_result_bytes, "max_memory_bytes": max_memory_bytes}
        body = json.dumps(settings).encode()
        self._send(protocol.SETTINGS_HEADER.pack(len(body)) + body)

    def send_batch(self, number: int, tasks: Sequence[tuple[int, ClaimedTask, bytes]]) -> None:
        """Send a batch: slot, task and spec of each. `number` counts batches."""
        parts = []
        for slot, task, spec in tasks:
            parts.append(protocol.TASK.pack(slot, task.result_id, task.attempts, len(spec)))
            parts.append(spec)
        body = b"".join(parts)
        number %= 256
        os.write(self._token_source, bytes((number,)) * len(tasks))
        self._send(protocol.BATCH_HEADER.pack(len(body), number, time.monotonic()) + body)

    def send_reply(self, body: bytes) -> None:
        """Send the reply to a request of the running task."""
        self._replies.write(frame(body, REPLY_MAGIC))

    def take_back(self) -> int:
        """Take back what has not been started: give the number of tasks, from the end of what was sent."""
        try:
            return len(os.read(self._tokens, protocol.MAX_TASKS_PER_BATCH * 4))
        except BlockingIOError:
            return 0

    def records(self, max_bytes: int) -> Iterator[protocol.Record]:
        """Give the whole records that have come. Must be exhausted at once. Raises ValueError at other bytes."""
        more = True
        for _ in range(_MAX_CHUNKS):
            try:
                data = os.read(self._results, _CHUNK)
            except BlockingIOError:
                data = b""
            self._records += data
            more = len(data) == _CHUNK
            if not more:
                break
        try:
            yield from protocol.records_in(self._records, max_bytes)
        finally:
            self._watch_results(there_is_more=more or bool(self._records))

    def _watch_results(self, *, there_is_more: bool) -> None:
        """The rest of a large record comes without a wake byte, so the pipe itself is watched for it."""
        if there_is_more and not self._is_watching_results:
            self._loop.add_reader(self._results, self._on_readable)
        elif self._is_watching_results and not there_is_more:
            self._loop.remove_reader(self._results)
        self._is_watching_results = there_is_more

    def take_raw_output(self) -> CapturedOutput | None:
        """Give what has come from descriptors 1 and 2 since the last call, if anything."""
        if not self._raw_output.total:
            return None
        output = self._raw_output.captured()
        self._raw_output = OutputBuffer(_RAW_OUTPUT_BYTES, _RAW_OUTPUT_BYTES)
        return output

    def finish(self) -> None:
        """The child is dead: read the rest of its raw output. Its records can still be read."""
        self._raw_output_reader.finish()

    def close_socket(self) -> None:
        """Close the socket: the child ends when it reads from it. May be called again."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()

    def close(self) -> None:
        """Close everything."""
        self._watch_results(there_is_more=False)
        self._raw_output_reader.close()
        self.close_socket()
        self._childs.close()
        self._ours.close()

    def _send(self, data: bytes) -> None:
        if self._socket.fileno() < 0:
            return
        was_waiting = bool(self._unsent)
        self._unsent += data
        if not was_waiting:
            self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
            return
        except OSError:
            self._unsent.clear()  # the child is dead: its exit follows
        self._loop.remove_writer(self._socket)

    def _receive(self) -> None:
        try:
            is_open = bool(self._socket.recv(_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            is_open = False
        if not is_open:
            self._loop.remove_reader(self._socket)  # the child is ending
        self._on_readable()
