"""The worker's ends of a child's pipes. Nothing here blocks, and memory is bounded whatever the child does."""

import asyncio
import os
from collections.abc import Callable

from reproq_listen.model import CapturedOutput
from reproq_listen.protocol.executor import (
    FRAME_HEADER_BYTES,
    MAX_METADATA_BYTES,
    MAX_REQUEST_BYTES,
    METADATA_MAGIC,
    REQUEST_MAGIC,
    RESULT_MAGIC,
)

_CHUNK = 64 << 10
_MAX_PIPE_BYTES = 1 << 20
"""Linux lets a process grow a pipe this far, so a pipe without a writer holds no more."""


class OutputBuffer:
    """What a child wrote to a stream: all of it counted, its beginning and its end kept."""

    def __init__(self, head_bytes: int, tail_bytes: int) -> None:
        assert tail_bytes > 0
        self.total = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_bytes - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._tail_bytes + _CHUNK:
            del self._tail[: -self._tail_bytes]

    def captured(self) -> CapturedOutput:
        """Give beginning, end and count."""
        return CapturedOutput(head=bytes(self._head), tail=bytes(self._tail[-self._tail_bytes :]), total=self.total)

    def last(self, count: int) -> bytes:
        """Give the last bytes, at most `count`."""
        output = self.captured()
        is_whole = len(output.head) + len(output.tail) == output.total
        return (output.head + output.tail if is_whole else output.tail)[-count:]


class FrameDecoder:
    """Decodes what our own executor sends: frames of metadata and of requests, then the one result frame."""

    def __init__(
        self,
        max_bytes: int,
        on_result: Callable[[], None],
        on_metadata: Callable[[bytes], None] = lambda _: None,
        on_request: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`max_bytes`: of the result. `on_metadata` and `on_request` are called with the body of each frame of their
        kind as it comes, `on_result` once when the result is there."""
        self._max_bytes = max_bytes
        self._on_result = on_result
        self._early = {
            METADATA_MAGIC: (MAX_METADATA_BYTES, on_metadata),
            REQUEST_MAGIC: (MAX_REQUEST_BYTES, on_request),
        }
        """What may come before the result: largest body, and what takes it."""
        self._data = bytearray()
        self._total = 0
        self._has_result_begun = False

    def feed(self, data: bytes) -> None:
        before = self.is_whole()
        self._total += len(data)
        if self._has_result_begun:
            self._data += data[: FRAME_HEADER_BYTES + self._max_bytes - len(self._data)]
        else:
            self._data += data
            self._take_early_frames()
        if self.is_whole() and not before:
            self._on_result()

    def _take_early_frames(self) -> None:
        """Hand on whole frames of metadata and of requests. Anything else begins the result."""
        while (early := self._early.get(bytes(self._data[: len(METADATA_MAGIC)]))) is not None:
            if len(self._data) < FRAME_HEADER_BYTES:
                return
            max_bytes, take = early
            size = int.from_bytes(self._data[len(METADATA_MAGIC) : FRAME_HEADER_BYTES], "big")
            if size > max_bytes:
                break
            end = FRAME_HEADER_BYTES + size
            if len(self._data) < end:
                return
            body = bytes(self._data[FRAME_HEADER_BYTES:end])
            del self._data[:end]
            self._total -= end
            take(body)
        if not any(magic.startswith(self._data) for magic in self._early):
            self._has_result_begun = True
            del self._data[FRAME_HEADER_BYTES + self._max_bytes :]

    def is_whole(self) -> bool:
        """Whether the result frame has arrived, or at least all the bytes that it announced."""
        announced = self._announced()
        return announced is not None and self._total >= FRAME_HEADER_BYTES + announced

    def _announced(self) -> int | None:
        header = self._data[:FRAME_HEADER_BYTES]
        if len(header) < FRAME_HEADER_BYTES or not header.startswith(RESULT_MAGIC):
            return None
        return int.from_bytes(header[len(RESULT_MAGIC) :], "big")

    def body(self) -> bytes | None:
        """Give the envelope, or None if no whole frame came. Raises ValueError, with the reason, if the bytes are not
        one frame, or too large a one."""
        announced = self._announced()
        if announced is None:
            if self._has_result_begun and self._data[: len(RESULT_MAGIC)] != RESULT_MAGIC[: len(self._data)]:
                raise ValueError("there is something other than a frame on the result pipe")
            return None
        if announced > self._max_bytes:
            raise ValueError(f"it has {announced} bytes; the limit is {self._max_bytes} (max_stdout_bytes)")
        if self._total > FRAME_HEADER_BYTES + announced:
            raise ValueError("there is something after the frame on the result pipe")
        return bytes(self._data[FRAME_HEADER_BYTES:]) if self.is_whole() else None


class PipeReader:
    """Empties one pipe into a sink until its end. Owns the descriptor."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, fd: int, sink: Callable[[bytes], None], *, is_watching: bool = True
    ) -> None:
        """With `is_watching` off, nothing is read before `watch` or `finish`."""
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._sink = sink
        self._is_watching = False
        if is_watching:
            self.watch()

    def watch(self) -> None:
        """Read whenever there is something to read."""
        self._is_watching = True
        self._loop.add_reader(self._fd, self._read)

    def _read(self) -> bool:
        """Move one chunk. False if there is none now, or none any more."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        except ConnectionResetError:  # the child has ended without reading a reply
            data = b""
        if not data:
            self.close()
            return False
        self._sink(data)
        return True

    def drain(self) -> None:
        """Take what is in the pipe now."""
        for _ in range(_MAX_PIPE_BYTES // _CHUNK + 1):
            if not self._read():
                break

    def finish(self) -> None:
        """Take what is in the pipe and close it: some process may hold the other end open."""
        self.drain()
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            if self._is_watching:
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class PipeWriter:
    """Hands bytes to a pipe as fast as its reader takes them, then closes it. Owns the descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, data: bytes) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._data = memoryview(data)
        self.written = 0
        self._is_watching = False
        self._write()
        if self._fd >= 0:
            self._is_watching = True
            loop.add_writer(fd, self._write)

    def _write(self) -> None:
        try:
            while self._data:
                count = os.write(self._fd, self._data)
                self.written += count
                self._data = self._data[count:]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # the child reads no more; its envelope or its exit status tells the rest
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            if self._is_watching:
                self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


class ReplyWriter:
    """Writes replies to a task as fast as it reads them. Owns the descriptor. A task that has ended gets none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        was_waiting = bool(self._data)
        self._data += data
        if not was_waiting:
            self._write()

    def _write(self) -> None:
        if self._fd < 0:
            return
        try:
            while self._data:
                del self._data[: os.write(self._fd, self._data)]
        except BlockingIOError:
            self._loop.add_writer(self._fd, self._write)
            return
        except (BrokenPipeError, ConnectionResetError):
            self._data.clear()
        self._loop.remove_writer(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
