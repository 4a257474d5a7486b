"""Noticing that a child process has ended, before it is reaped.

Until it is reaped, a dead child keeps its pid, and with it the number of its process group. Only then can the group be
signalled without the danger that the number has passed to another process.
"""

import asyncio
import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable

from msgspec import Struct

from reproq_listen.protocol.memory import MAXRSS_UNIT


class Exit(Struct, frozen=True):
    """How a process ended, and what it used: itself and those of its children that it waited for."""

    status: int | None
    """Exit status, or minus the number of the signal. None if another part of this process has reaped it."""
    cpu_seconds: float
    """User and system time together."""
    peak_rss_bytes: int
    """For a forked child this includes what it shares with its forkserver."""


_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_RETRY_SECONDS = 0.1


class ExitWatch:
    """Calls `on_exit` once, on the loop, when the process has ended. The caller must reap it afterwards.

    Uses a pidfd, as soon as there is a free descriptor. Where there is none (not Linux, or a sandbox that forbids it),
    a thread waits for a child of this process.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pid: int, on_exit: Callable[[], None]) -> None:
        self._loop = loop
        self.on_exit = on_exit
        """May be replaced until the process has ended."""
        self._fd = -1
        self._is_closed = False
        self._open(pid)

    def _open(self, pid: int) -> None:
        if self._is_closed:
            return
        try:
            self._fd = os.pidfd_open(pid)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _NO_RESOURCES:
                self._loop.call_later(_RETRY_SECONDS, self._open, pid)
            else:
                threading.Thread(target=self._wait, args=(pid,), name=f"wait-{pid}", daemon=True).start()
        else:
            self._loop.add_reader(self._fd, self._ended)

    def _wait(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):  # another part of this process has reaped it
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ended)

    def _ended(self) -> None:
        if not self._is_closed:
            self.close()
            self.on_exit()

    def close(self) -> None:
        """Do not call back any more."""
        self._is_closed = True
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def reap(pid: int) -> Exit:
    """Reap a child of this process that has ended. Blocks if it has not."""
    try:
        _, status, usage = os.wait4(pid, 0)
    except ChildProcessError:
        return Exit(status=None, cpu_seconds=0.0, peak_rss_bytes=0)
    return Exit(
        status=os.waitstatus_to_exitcode(status),
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_rss_bytes=usage.ru_maxrss * MAXRSS_UNIT,
    )


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of the group, or to its leader alone if it has not made the group yet.

    An empty group is no error. The leader must be a process that has not been reaped.
    """
    # PermissionError: macOS raises it for a group in which only a dead leader is left.
    with contextlib.suppress(PermissionError):
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(group, number)
