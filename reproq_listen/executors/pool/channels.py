"""The worker's ends of the channels to one pool child (protocol/pool.py). Nothing here blocks."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from reproq_listen.executors.process.pipes import Output, Reader
from reproq_listen.model import CapturedOutput, ClaimedTask
from reproq_listen.protocol import pool as protocol

_CHUNK = 64 << 10
_MAX_CHUNKS = 16
"""At once; a child may write as fast as this reads."""
_RAW_OUTPUT_BYTES = 16 << 10


class ChildChannels:
    """Link, token pipe, result pipe, and one pipe for whatever the child writes to its real standard streams.

    Owns our ends until `close`, and the child's ends until `child_has_its_ends`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[], None]) -> None:
        """`on_readable` is called when there may be records to read. Raises OSError, with nothing left open."""
        self._loop = loop
        self._on_readable = on_readable
        self._unsent = bytearray()
        self._records = bytearray()
        self._is_watching_results = False
        with contextlib.ExitStack() as undo:
            self._theirs = contextlib.ExitStack()
            undo.push(self._theirs)
            self._ours = contextlib.ExitStack()
            undo.push(self._ours)
            self._link, link = socket.socketpair()
            self._ours.callback(self._link.close)
            self._theirs.callback(link.close)
            self._link.settimeout(0)
            # Both sides read tokens without waiting: it is one open file, and so one mode.
            self._tokens, self._token_source = self._pipe(self._ours, self._ours)
            self._results, results = self._pipe(self._ours, self._theirs)
            raw_output, self._raw_output_end = self._pipe(self._ours, self._theirs)
            os.set_blocking(results, False)
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._theirs.callback(os.close, nothing)
            self.fds_for_child = (
                nothing,
                self._raw_output_end,
                self._raw_output_end,
                link.fileno(),
                self._tokens,
                results,
            )
            self._raw_output = Output(_RAW_OUTPUT_BYTES, _RAW_OUTPUT_BYTES)
            self._raw_output_reader = Reader(loop, os.dup(raw_output), lambda data: self._raw_output.feed(data))
            undo.pop_all()
        loop.add_reader(self._link, self._receive)

    def _pipe(self, reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
        read, write = os.pipe()
        reader.callback(os.close, read)
        writer.callback(os.close, write)
        os.set_blocking(read, False)
        return read, write

    def child_has_its_ends(self) -> None:
        """The child is forked (or never will be): close what is only its own."""
        self._theirs.close()

    def send_greeting(self, allowed: Sequence[str], max_result_bytes: int, max_memory_bytes: int) -> None:
        """Say what the child must know before its first task."""
        said = {"allowed": allowed, "max_result_bytes": max_result_bytes, "max_memory_bytes": max_memory_bytes}
        body = json.dumps(said).encode()
        self._send(protocol.GREETING_HEADER.pack(len(body)) + body)

    def give(self, number: int, tasks: Sequence[tuple[int, ClaimedTask, bytes]]) -> None:
        """Send a batch: slot, task and spec of each. `number` counts batches."""
        parts = []
        for slot, task, spec in tasks:
            parts.append(protocol.TASK.pack(slot, task.result_id, task.attempts, len(spec)))
            parts.append(spec)
        body = b"".join(parts)
        number %= 256
        os.write(self._token_source, bytes((number,)) * len(tasks))
        self._send(protocol.BATCH_HEADER.pack(len(body), number, time.monotonic()) + body)

    def take_back(self) -> int:
        """How many tasks, from the end of what was given, have not been started. They never will be."""
        try:
            return len(os.read(self._tokens, protocol.MAX_TASKS_PER_BATCH * 4))
        except BlockingIOError:
            return 0

    def records(self, max_bytes: int) -> Iterator[protocol.Record]:
        """Give the whole records that have come. Raises ValueError at what is none. To be taken to its end at once."""
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
        """The rest of a large record comes when there is room for it: follow it without a bell."""
        if there_is_more and not self._is_watching_results:
            self._loop.add_reader(self._results, self._on_readable)
        elif self._is_watching_results and not there_is_more:
            self._loop.remove_reader(self._results)
        self._is_watching_results = there_is_more

    def take_raw_output(self) -> CapturedOutput | None:
        """Give what has come from the real standard streams since this was asked last, if anything."""
        self._raw_output_reader.drain()
        if not self._raw_output.total:
            return None
        said = self._raw_output.said()
        self._raw_output = Output(_RAW_OUTPUT_BYTES, _RAW_OUTPUT_BYTES)
        return said

    def finish(self) -> None:
        """The child is dead: take what it wrote last to its standard streams. Records are still there to be read."""
        self._raw_output_reader.finish()

    def close_link(self) -> None:
        """Close the link: the child ends when it looks at it. Does nothing the second time."""
        if self._link.fileno() < 0:
            return
        self._loop.remove_reader(self._link)
        self._loop.remove_writer(self._link)
        self._link.close()

    def close(self) -> None:
        """Close everything."""
        self._watch_results(there_is_more=False)
        self._raw_output_reader.close()
        self.close_link()
        self._theirs.close()
        self._ours.close()

    def _send(self, data: bytes) -> None:
        if self._link.fileno() < 0:
            return
        was_waiting = bool(self._unsent)
        self._unsent += data
        if not was_waiting:
            self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._link.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._link, self._write)
            return
        except OSError:
            self._unsent.clear()  # it is dead: its end says the rest
        self._loop.remove_writer(self._link)

    def _receive(self) -> None:
        try:
            on_readable = bool(self._link.recv(_CHUNK))
        except BlockingIOError:
            return
        except OSError:
            on_readable = False
        if not on_readable:
            self._loop.remove_reader(self._link)  # it is ending
        self._on_readable()
