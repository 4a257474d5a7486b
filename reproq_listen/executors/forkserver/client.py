"""The worker's side of one forkserver process (server_script.py): requests out, answers in, and its death.

Nothing here blocks. A forkserver that does not answer is killed: then its children become this process's own
(Orphans.adopt), and are reaped here.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

from reproq_listen.executors.forkserver import server_script as protocol
from reproq_listen.executors.process.exits import Exit, ExitWatch, signal_group, wait_for

_PATIENCE_SECONDS = 15.0
"""For an answer. A forkserver only ever forks and reaps; slower than this it is stopped or lost."""
_BOOT_BYTES = 64 << 10
_LOOKS = 100
_LOOK_AGAIN_SECONDS = 0.01
"""A newborn child is given so many looks to leave the group of a forkserver that has died."""


class ForkserverGoneError(OSError):
    """The forkserver has ended. A child that it made all the same is killed, unless its number is used again."""


class ForkserverClient:
    """One forkserver process while it lives, and the children it has not reaped. Owns process and socket."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        died: Callable[["ForkserverClient", int], None],
        before_reaping: Callable[[int], None],
    ) -> None:
        """`before_reaping` is told the pid while the process still holds it, `died` the exit status afterwards."""
        control.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._control = control
        self._died = died
        self._before_reaping = before_reaping
        self._is_dead = False
        self._is_retired = False
        self._numbers = 0
        self._results: deque[tuple[bytes, Sequence[int]]] = deque()
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._reaps: dict[int, Callable[[Exit], None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self.is_up: asyncio.Future[bytes] = self._loop.create_future()
        """What the forkserver said when it was ready. Raises ChildProcessError if it ended before."""
        self._children: set[int] = set()
        """Those that have not been reaped."""
        self._loop.add_reader(control, self._read)
        self._watch = ExitWatch(self._loop, process.pid, self._ended)

    @property
    def pid(self) -> int:
        return self._process.pid

    def boot(self, told: dict[str, object]) -> None:
        """Say what to import. `is_up` is done when that is done."""
        self._send(json.dumps(told).encode(), ())

    async def fork(self, entry: str, arguments: Sequence[str], env: dict[str, str], fds: Sequence[int]) -> int:
        """Give the pid of a new child. The descriptors are sent, and stay the caller's.

        Raises OSError if there is none to be had: ForkserverGoneError if another forkserver might give one.
        If it is cancelled, the child is killed when it is there.
        """
        if self._is_dead:
            raise ForkserverGoneError("the forkserver process has ended")
        self._numbers = number = (self._numbers + 1) & 0xFFFFFFFF
        body = json.dumps((entry, arguments, env)).encode()
        answer: asyncio.Future[int] = self._loop.create_future()
        self._forks[number] = answer
        self._send(protocol.FORK_REQUEST.pack(b"F", number) + body, fds)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._dispose(answer.result())  # it came while we were cancelled
            raise

    def reap(self, pid: int, then: Callable[[Exit], None]) -> None:
        """Reap a child that has ended, and tell how."""
        if self._is_dead:
            self._children.discard(pid)
            then(wait_for(pid))
            return
        self._reaps[pid] = then
        self._send(protocol.REAP_REQUEST.pack(b"R", pid), ())

    def retire(self) -> None:
        """Let it end when it has no children, and none on the way."""
        self._is_retired = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._is_retired and not (self._children or self._forks):
            self.close()

    def close(self) -> None:
        """Let it end. `died` is called when it has. May be called again."""
        if self._control.fileno() < 0:
            return
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()

    def kill(self) -> None:
        if not self._is_dead:
            self._process.kill()

    def _send(self, message: bytes, fds: Sequence[int]) -> None:
        if self._control.fileno() < 0:
            return  # it is ending: _ended answers all
        self._results.append((message, fds))
        if self._alarm is None:
            self._alarm = self._loop.call_later(_PATIENCE_SECONDS, self._lose_patience)
        if len(self._results) == 1:
            self._write()

    def _write(self) -> None:
        """Send what the socket takes; the rest follows when it takes more."""
        while self._results:
            message, fds = self._results[0]
            try:
                socket.send_fds(self._control, [message], fds)
            except BlockingIOError:
                self._loop.add_writer(self._control, self._write)
                return
            except (BrokenPipeError, ConnectionError):
                self._results.clear()  # it is ending: _ended answers all
                break
            except OSError as error:
                self._refuse(message, error)
            self._results.popleft()
        self._loop.remove_writer(self._control)

    def _refuse(self, message: bytes, error: OSError) -> None:
        """A message that cannot be sent: it is too large, or too many descriptors are on their way."""
        if message[:1] == b"F":
            _, number = protocol.FORK_REQUEST.unpack_from(message)
            answer = self._forks.pop(number)
            if not answer.done():
                answer.set_exception(error)
            if not (self._forks or self._reaps):
                self._rearm()
            self._loop.call_soon(self._close_if_over)

    def _read(self) -> None:
        while self._control.fileno() >= 0:  # an answer may be what it was kept open for
            try:
                message = self._control.recv(_BOOT_BYTES)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self._loop.remove_reader(self._control)  # it is ending: _ended follows
                break
            self._take(message)
        self._rearm()

    def _take(self, message: bytes) -> None:
        match message[:1]:
            case b"F":
                _, number, error, pid = protocol.FORK_ANSWER.unpack(message)
                self._forked(self._forks.pop(number), error, pid)
            case b"R":
                _, pid, status, cpu, kib = protocol.REAP_ANSWER.unpack(message)
                self._children.discard(pid)
                self._reaps.pop(pid)(Exit(status=status, cpu_seconds=cpu, peak_rss_bytes=kib << 10))
            case _:
                self.is_up.set_result(message[1:])
        self._close_if_over()

    def _forked(self, answer: asyncio.Future[int], error: int, pid: int) -> None:
        if error and not answer.done():
            answer.set_exception(OSError(error, os.strerror(error)))
        elif not error:
            self._children.add(pid)
            if answer.done():
                self._dispose(pid)
            else:
                answer.set_result(pid)

    def _dispose(self, pid: int) -> None:
        """Nobody wants this child any more."""
        os.kill(pid, signal.SIGKILL)
        ExitWatch(self._loop, pid, lambda: self.reap(pid, _forget))

    def _rearm(self) -> None:
        """Every answer buys the others time."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._forks or self._reaps:
            self._alarm = self._loop.call_later(_PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        self._alarm = None
        if self.is_up.done():  # a boot has a limit of its own
            self.kill()

    def _has_newborn(self) -> bool:
        """Whether a child that somebody waits for has not left the forkserver's group yet."""
        for pid in self._children - self._reaps.keys():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == self._process.pid:
                    return True
        return False

    def _ended(self, looks: int = _LOOKS) -> None:
        """The process has ended. Its children are ours by now: the kernel hands them over before it tells."""
        self._read()  # what it has answered counts
        if looks and self._has_newborn():
            self._loop.call_later(_LOOK_AGAIN_SECONDS, self._ended, looks - 1)
            return
        self._is_dead = True
        if self._alarm is not None:
            self._alarm.cancel()
        self.close()
        signal_group(self._process.pid, signal.SIGKILL)
        self._before_reaping(self._process.pid)
        status = self._process.wait()
        if not self.is_up.done():
            self.is_up.set_exception(ChildProcessError(f"it ended with status {status}"))
        for answer in (answer for answer in self._forks.values() if not answer.done()):
            answer.set_exception(ForkserverGoneError("the forkserver process has ended"))
        self._forks.clear()
        for pid, then in self._reaps.items():
            self._children.discard(pid)
            self._loop.call_soon(then, wait_for(pid))  # each by itself: a fault of one is not the others'
        self._reaps.clear()
        self._died(self, status)


def _forget(end: Exit) -> None:
    """Sink for the end of a child that nobody waits for."""
