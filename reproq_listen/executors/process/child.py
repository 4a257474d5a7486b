"""One child process: its pipes, its session, and a cold start of it."""

import array
import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.process.exits import Exit, ExitWatch, reap, signal_group
from reproq_listen.protocol.executor import RESULT_FD_ENV


class Child:
    """A process that leads a session and a group of its own, and the worker's ends of its pipes.

    The user of a descriptor closes it. When the process has ended it must be reaped with `reap`, which hands how it
    ended to its argument, at once or a little later.
    """

    def __init__(
        self, number: str, pid: int, pipes: "ChildPipes", reap: Callable[[Callable[[Exit], None]], None]
    ) -> None:
        """`number`: of ProcessCleanup."""
        self.number = number
        self.pid = pid
        self.stdin = pipes.stdin
        self.stdout = pipes.stdout
        self.stderr = pipes.stderr
        self.result = pipes.result
        self.reap = reap
        self.preamble = b""
        """To be written to stdin before the payload."""
        self.has_begun = True
        """Whether it has taken its work. To be set with `is_unread` when it has ended."""
        self._kept_stdin = pipes.kept_stdin
        self._watch: ExitWatch | None = None

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the loop when the process has ended. Replaces the callback of an earlier call."""
        if self._watch is None:
            self._watch = ExitWatch(asyncio.get_running_loop(), self.pid, callback)
        else:
            self._watch.on_exit = callback

    def is_unread(self, written: int) -> bool:
        """Whether it has read nothing of the bytes written to stdin. Call once, when it has ended.

        False if that is not known: then it has started with its work.
        """
        if self._kept_stdin < 0:
            return False
        unread = array.array("i", [0])
        fcntl.ioctl(self._kept_stdin, termios.FIONREAD, unread)
        os.close(self._kept_stdin)
        self._kept_stdin = -1
        return unread[0] == written

    def close_pipes(self) -> None:
        """Close everything of a child that never gets work."""
        for fd in (self.stdin, self.stdout, self.stderr, self.result, self._kept_stdin):
            if fd >= 0:
                os.close(fd)

    def discard(self) -> None:
        """Kill a child that never gets work and that nothing else knows, and reap it when it has ended."""
        self.close_pipes()
        signal_group(self.pid, signal.SIGKILL)
        self.on_exit(lambda: self.reap(lambda _: None))


class ChildPipes:
    """The pipes of a child that is about to be started: the worker's ends and the child's."""

    def __init__(self, *, private_result: bool) -> None:
        """Raises OSError, with nothing left open."""
        self._open: list[int] = []
        self.kept_stdin = self.child_result = self.result = -1
        try:
            self.child_stdin, self.stdin = self._pipe()
            self.stdout, self.child_stdout = self._pipe()
            self.stderr, self.child_stderr = self._pipe()
            if private_result:
                self.result, self.child_result = self._socket_pair()
        except OSError:
            self.close()
            raise

    def _pipe(self) -> tuple[int, int]:
        read, write = os.pipe()
        self._open += (read, write)
        return read, write

    def _socket_pair(self) -> tuple[int, int]:
        """The result comes one way, replies to the task go the other way."""
        ours, childs = (each.detach() for each in socket.socketpair())
        self._open += (ours, childs)
        return ours, childs

    def for_child(self) -> tuple[int, ...]:
        """Give the child's ends of 0, 1 and 2, and of the result socket if there is one."""
        standard = (self.child_stdin, self.child_stdout, self.child_stderr)
        return standard if self.child_result < 0 else (*standard, self.child_result)

    def started(self, *, keep_stdin: bool = False) -> None:
        """Close the child's ends: the child has its own copies. With `keep_stdin` keep one, for `Child.is_unread`."""
        for fd in self.for_child()[int(keep_stdin) :]:
            os.close(fd)
        if keep_stdin:
            self.kept_stdin = self.child_stdin

    def close(self) -> None:
        """Close everything: the child could not be started."""
        for fd in self._open:
            os.close(fd)


def start(
    number: str, arguments: Sequence[str], environment: Mapping[str, str], *, private_result: bool, keep_stdin: bool
) -> Child:
    """Start a child. With `private_result` it inherits a socket whose number is in its environment. `keep_stdin`: see
    ChildPipes.started.

    Raises OSError, with nothing left open, if it cannot be started.
    """
    pipes = ChildPipes(private_result=private_result)
    extra = {RESULT_FD_ENV: str(pipes.child_result)} if private_result else {}
    try:
        process = subprocess.Popen(
            arguments,
            stdin=pipes.child_stdin,
            stdout=pipes.child_stdout,
            stderr=pipes.child_stderr,
            pass_fds=(pipes.child_result,) if private_result else (),
            env={**environment, **extra},
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:
        pipes.close()
        raise
    pipes.started(keep_stdin=keep_stdin)

    def reap_it(on_exit: Callable[[Exit], None]) -> None:
        exit_ = reap(process.pid)
        process.returncode = exit_.status or 0  # or Popen would wait for it again
        on_exit(exit_)

    return Child(number, process.pid, pipes, reap_it)
