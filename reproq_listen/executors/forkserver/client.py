"""The worker's side of one forkserver process (server_script.py): sends requests, receives answers, notices its end.

Nothing here blocks. A forkserver that does not answer is killed. Its children then become children of this process
(Orphans.become_subreaper), and are reaped here.
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
from reproq_listen.executors.process.exits import Exit, ExitWatch, reap, signal_group

_MAX_ANSWER_BYTES = 64 << 10
_LOOKS = 100
_LOOK_PAUSE_SECONDS = 0.01
"""A child that was just forked has this many looks to leave the group of a forkserver that has died."""


class ForkserverGoneError(OSError):
    """The forkserver has ended. If it has forked a child all the same, that is killed."""


class ForkserverClient:
    """One forkserver process while it lives, and the children it has not reaped. Owns process and socket."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        answer_seconds: float,
        on_exit: Callable[[int], None],
        before_reaping: Callable[[int], None],
    ) -> None:
        """`answer_seconds`: how long to wait for an answer. `before_reaping` is called with the forkserver's pid while
        the dead process still holds it, `on_exit` with its exit status afterwards."""
        control.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._control = control
        self._answer_seconds = answer_seconds
        self._on_exit = on_exit
        self._before_reaping = before_reaping
        self._is_dead = False
        self._is_retired = False
        self._last_number = 0
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._forks: dict[int, asyncio.Future[int]] = {}
        self._reaps: dict[int, Callable[[Exit], None]] = {}
        self._answer_timer: asyncio.TimerHandle | None = None
        self.is_up: asyncio.Future[bytes] = self._loop.create_future()
        """The forkserver's first message, when it is ready. Raises ChildProcessError if it ended before."""
        self._children: set[int] = set()
        """Children that have not been reaped."""
        self._loop.add_reader(control, self._read)
        self._watch = ExitWatch(self._loop, process.pid, self._ended)

    @property
    def pid(self) -> int:
        return self._process.pid

    def boot(self, config: dict[str, object]) -> None:
        """Tell the forkserver what to import. `is_up` is done when it has."""
        self._send(json.dumps(config).encode(), ())

    async def fork(self, entry: bytes, tag: str, fds: Sequence[int]) -> int:
        """Give the pid of a new child. The descriptors are sent, and stay the caller's.

        Raises OSError if no child can be forked: ForkserverGoneError if another forkserver may be able to. If it is
        cancelled, the child is killed when it is there.
        """
        if self._is_dead:
            raise ForkserverGoneError("the forkserver process has ended")
        self._last_number = number = (self._last_number + 1) & 0xFFFFFFFF
        answer: asyncio.Future[int] = self._loop.create_future()
        self._forks[number] = answer
        self._send(protocol.FORK_REQUEST.pack(b"F", number, entry) + tag.encode(), fds)
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._dispose(answer.result())  # the answer came together with the cancellation
            raise

    def reap(self, pid: int, on_exit: Callable[[Exit], None]) -> None:
        """Reap a child that has ended, and hand over how it ended."""
        if self._is_dead:
            self._children.discard(pid)
            on_exit(reap(pid))
            return
        self._reaps[pid] = on_exit
        self._send(protocol.REAP_REQUEST.pack(b"R", pid), ())

    def retire(self) -> None:
        """Let the forkserver end as soon as it has no children, and none is being forked."""
        self._is_retired = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._is_retired and not (self._children or self._forks):
            self.close()

    def close(self) -> None:
        """Let the forkserver end; `on_exit` follows. May be called again."""
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
            return  # it is ending: _ended answers all requests
        self._unsent.append((message, fds))
        if self._answer_timer is None:
            self._answer_timer = self._loop.call_later(self._answer_seconds, self._answer_overdue)
        if len(self._unsent) == 1:
            self._write()

    def _write(self) -> None:
        """Send what the socket takes; the rest follows when it takes more."""
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], fds)
            except BlockingIOError:
                self._loop.add_writer(self._control, self._write)
                return
            except (BrokenPipeError, ConnectionError):
                self._unsent.clear()  # it is ending: _ended answers all requests
                break
            except OSError as error:
                self._refuse(message, error)
            self._unsent.popleft()
        self._loop.remove_writer(self._control)

    def _refuse(self, message: bytes, error: OSError) -> None:
        """A message cannot be sent: it is too large, or too many descriptors are in flight."""
        if message[:1] == b"F":
            _, number, _ = protocol.FORK_REQUEST.unpack_from(message)
            answer = self._forks.pop(number)
            if not answer.done():
                answer.set_exception(error)
            if not (self._forks or self._reaps):
                self._restart_answer_timer()
            self._loop.call_soon(self._close_if_over)

    def _read(self) -> None:
        while self._control.fileno() >= 0:  # the answer before may have been the last one
            try:
                message = self._control.recv(_MAX_ANSWER_BYTES)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self._loop.remove_reader(self._control)  # it is ending: _ended follows
                break
            self._take(message)
        self._restart_answer_timer()

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
        """Kill and reap a child that is not wanted any more."""
        os.kill(pid, signal.SIGKILL)
        ExitWatch(self._loop, pid, lambda: self.reap(pid, _ignore))

    def _restart_answer_timer(self) -> None:
        """Each answer gives the other requests the full time again."""
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
        if self._forks or self._reaps:
            self._answer_timer = self._loop.call_later(self._answer_seconds, self._answer_overdue)

    def _answer_overdue(self) -> None:
        self._answer_timer = None
        if self.is_up.done():  # booting has a time limit of its own
            self.kill()

    def _has_child_in_its_group(self) -> bool:
        """Whether a child that is still wanted has not left the forkserver's process group yet."""
        for pid in self._children - self._reaps.keys():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) == self._process.pid:
                    return True
        return False

    def _ended(self, looks: int = _LOOKS) -> None:
        """The process has ended. Its children are ours already: the kernel hands them over first."""
        self._read()  # answers that came before the end count
        if looks and self._has_child_in_its_group():
            self._loop.call_later(_LOOK_PAUSE_SECONDS, self._ended, looks - 1)
            return
        self._is_dead = True
        if self._answer_timer is not None:
            self._answer_timer.cancel()
        self.close()
        signal_group(self._process.pid, signal.SIGKILL)
        self._before_reaping(self._process.pid)
        status = self._process.wait()
        if not self.is_up.done():
            self.is_up.set_exception(ChildProcessError(f"it ended with status {status}"))
        for answer in (answer for answer in self._forks.values() if not answer.done()):
            answer.set_exception(ForkserverGoneError("the forkserver process has ended"))
        self._forks.clear()
        for pid, on_exit in self._reaps.items():
            self._children.discard(pid)
            self._loop.call_soon(on_exit, reap(pid))  # each in a callback of its own: errors stay apart
        self._reaps.clear()
        self._on_exit(status)


def _ignore(exit_: Exit) -> None:
    """Take the end of a child that is not wanted any more."""
