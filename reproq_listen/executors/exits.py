"""Learning that a child process has ended, without reaping it.

As long as nobody has waited for it, a dead child keeps its pid, and with it the number of its process group:
only so can the group be signalled without the danger of hitting a stranger that was given the same number.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable


class ExitWatch:
    """Calls back once, on the loop, when the process has ended. The caller must reap it afterwards.

    Uses a pidfd; where there is none (not Linux, or a sandbox that forbids it), a thread that waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, pid: int, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._fd = -1
        self._is_closed = False
        try:
            self._fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            threading.Thread(target=self._wait, args=(pid,), name=f"wait-{pid}", daemon=True).start()
        else:
            loop.add_reader(self._fd, self._fire)

    def _wait(self, pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(self._fire)

    def _fire(self) -> None:
        if not self._is_closed:
            self.close()
            self._ended()

    def close(self) -> None:
        """Never call back from now on."""
        self._is_closed = True
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of the group. An empty group is no error.

    The group's leader must be a child of ours that is not reaped yet.
    """
    # PermissionError: macOS says so of a group in which only a dead leader is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
