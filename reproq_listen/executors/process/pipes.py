"""The worker's ends of a child's pipes. Nothing here blocks, and memory is bounded whatever the child does."""

import asyncio
import os
from collections.abc import Callable

from reproq_listen.model import CapturedOutput
from reproq_listen.protocol.executor import FRAME_HEADER_BYTES, FRAME_MAGIC, MAX_NOTE_BYTES, NOTE_MAGIC

_CHUNK = 64 << 10
_LARGEST_PIPE = 1 << 20
"""Bytes. Linux lets a process grow a pipe this far: no more can be left in one whose writer is gone."""


class Output:
    """What a child wrote: all of it counted, its beginning and its end kept."""

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

    def take_over(self, said: CapturedOutput) -> None:
        """Feed what another one has kept; what it dropped is counted."""
        self.feed(said.head)
        missing = said.total - len(said.head) - len(said.tail)
        if missing:
            self.total += missing
            self._head_bytes = len(self._head)  # what comes after a gap is not the beginning
        self.feed(said.tail)

    def kept(self) -> tuple[bytes, bytes]:
        """Give beginning and end. They are the whole if their lengths add up to `total`."""
        return bytes(self._head), bytes(self._tail[-self._tail_bytes :])

    def said(self) -> CapturedOutput:
        """Give all that is known of it."""
        head, tail = self.kept()
        return CapturedOutput(head=head, tail=tail, total=self.total)

    def end(self, most: int) -> bytes:
        """Give the last bytes, at most this many."""
        head, tail = self.kept()
        joined = head + tail if len(head) + len(tail) == self.total else tail
        return joined[-most:]


class Frame:
    """What our own executor sends on its private pipe: notes, then the one result frame (protocol.py)."""

    def __init__(
        self, max_bytes: int, on_whole: Callable[[], None], on_note: Callable[[bytes], None] = lambda _: None
    ) -> None:
        """`on_note` is handed each note's body as it comes, `on_whole` called once when the result is there."""
        self._max_bytes = max_bytes
        self._on_whole = on_whole
        self._on_note = on_note
        self._data = bytearray()
        self._total = 0
        self._are_notes_over = False

    def feed(self, data: bytes) -> None:
        before = self.is_whole()
        self._total += len(data)
        if self._are_notes_over:
            self._data += data[: FRAME_HEADER_BYTES + self._max_bytes - len(self._data)]
        else:
            self._data += data
            self._take_notes()
        if self.is_whole() and not before:
            self._on_whole()

    def _take_notes(self) -> None:
        """Hand on whole notes. What comes after the last one, or cannot be one, is the result's."""
        while self._data.startswith(NOTE_MAGIC):
            if len(self._data) < FRAME_HEADER_BYTES:
                return
            size = int.from_bytes(self._data[len(NOTE_MAGIC) : FRAME_HEADER_BYTES], "big")
            if size > MAX_NOTE_BYTES:
                break
            end = FRAME_HEADER_BYTES + size
            if len(self._data) < end:
                return
            note = bytes(self._data[FRAME_HEADER_BYTES:end])
            del self._data[:end]
            self._total -= end
            self._on_note(note)
        if not NOTE_MAGIC.startswith(self._data):
            self._are_notes_over = True
            del self._data[FRAME_HEADER_BYTES + self._max_bytes :]

    def is_whole(self) -> bool:
        """Whether the frame has arrived (or at least all the bytes that it announced)."""
        announced = self._announced()
        return announced is not None and self._total >= FRAME_HEADER_BYTES + announced

    def _announced(self) -> int | None:
        header = self._data[:FRAME_HEADER_BYTES]
        if len(header) < FRAME_HEADER_BYTES or not header.startswith(FRAME_MAGIC):
            return None
        return int.from_bytes(header[len(FRAME_MAGIC) :], "big")

    def body(self) -> bytes | None:
        """Give the envelope, or None if not a whole frame came. Raises ValueError, with the reason, if what
        came is not one frame or is too large."""
        announced = self._announced()
        if announced is None:
            if self._are_notes_over and self._data[: len(FRAME_MAGIC)] != FRAME_MAGIC[: len(self._data)]:
                raise ValueError("there is something other than a frame on the result pipe")
            return None
        if announced > self._max_bytes:
            raise ValueError(f"it has {announced} bytes; the limit is {self._max_bytes} (max_stdout_bytes)")
        if self._total > FRAME_HEADER_BYTES + announced:
            raise ValueError("there is something after the frame on the result pipe")
        return bytes(self._data[FRAME_HEADER_BYTES:]) if self.is_whole() else None


class Reader:
    """Empties one pipe into a sink until its end. Owns the descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, sink: Callable[[bytes], None]) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._sink = sink
        loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Move one chunk; False when there is none now, or none any more."""
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.close()
            return False
        self._sink(data)
        return True

    def drain(self) -> None:
        """Take what is in the pipe now."""
        for _ in range(_LARGEST_PIPE // _CHUNK + 1):
            if not self._read():
                break

    def finish(self) -> None:
        """Take what is in the pipe and close it, although some process may still hold the other end."""
        self.drain()
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class Writer:
    """Hands bytes to a pipe as fast as its reader takes them, then closes it. Owns the descriptor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, data: bytes) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._data = memoryview(data)
        self._write()
        if self._fd >= 0:
            loop.add_writer(fd, self._write)

    def _write(self) -> None:
        try:
            while self._data:
                self._data = self._data[os.write(self._fd, self._data) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass  # it does not want the rest: its envelope or its end says the more
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1
