"""Finding processes that have left their process group: the worker is the subreaper of its children (Linux).

Signals to an attempt's group do not reach a process that has made a session of its own. When the parent of such a
process dies, the kernel makes it a child of the worker. The worker finds it by the tag in its environment, kills it if
its attempt is over, and reaps it.

A process that has also changed its environment is recognised by the worker's control group, if there is one. It belongs
to one of the attempts that were running when it started, so it is killed when they are all over. Without a control
group it is reaped, but not killed.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from reproq_listen.executors.cleanup.cgroup import ControlGroup
from reproq_listen.executors.process.exits import signal_group
from reproq_listen.protocol.executor import TAG_ENV

_PR_SET_CHILD_SUBREAPER = 36
_FIRST_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS = 1.0
_MAX_PAUSE_SECONDS = 8.0
_ZOMBIE_SECONDS = 2.0
"""A dead child without a tag may belong to other code of this process: that code has this long to reap it."""
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has orphans to look for
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_DUTY = 20
"""Sweeps take at most one part in this many of the time: reading /proc is slow on a host with many processes."""


class _Child(NamedTuple):
    pid: int
    started: int
    """Ticks of the clock since the boot."""
    is_dead: bool


class Orphans:
    """Sweeps the children that this process has adopted.

    A sweep follows soon after an attempt has ended. While no attempt begins or ends, sweeps become rarer.
    """

    def __init__(self, tag: str, control_group: ControlGroup | None) -> None:
        self.sweeps = 0
        self._prefix = f"{TAG_ENV}={tag}.".encode()
        self._control_group = control_group
        self._live: dict[str, int] = {}
        self._at_work: dict[str, int] = {}
        """Since when, in ticks of the clock since the boot, the child may run code of tasks."""
        self._killed: set[int] = set()
        self._dead_since: dict[tuple[int, int], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_cost = 0.0
        self._pause = _PAUSE_SECONDS
        self._is_subreaper = False

    def become_subreaper(self) -> None:
        """Does nothing where the kernel has no subreapers."""
        if sys.platform == "linux" and not self._is_subreaper:
            self._is_subreaper = _set_subreaper(is_on=True)

    def began(self, number: str, pid: int) -> None:
        """A child has started. Its owner reaps the child itself; its orphans are left alone."""
        self._live[number] = pid
        self._pause = _PAUSE_SECONDS
        self._schedule(_PAUSE_SECONDS)

    def given_work(self, number: str) -> None:
        """From now on the child runs code of tasks."""
        self._at_work[number] = _now()

    def ended(self, number: str) -> None:
        """A child is over and reaped: everything else with its tag will be killed."""
        del self._live[number]
        self._at_work.pop(number, None)
        self._schedule(_FIRST_PAUSE_SECONDS)

    def _schedule(self, pause: float) -> None:
        if not self._is_subreaper:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(pause, _DUTY * self._last_cost)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = loop.call_later(due - loop.time(), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.sweep()
        if self._killed:
            self._schedule(_FIRST_PAUSE_SECONDS)  # the kernel hands over the children of the killed next
        elif self._dead_since:
            self._schedule(_PAUSE_SECONDS)
        elif self._live:
            self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)
            self._schedule(self._pause)

    def sweep(self) -> None:
        """Kill the adopted processes whose attempt is over, and reap the dead ones."""
        self.sweeps += 1
        began = time.monotonic()
        dead: dict[tuple[int, int], float] = {}
        for child in _children(set(self._live.values())):
            identity = (child.pid, child.started)
            dead_since = self._dead_since.get(identity, began)
            if not child.is_dead:
                self._kill_if_over(child)
            elif child.pid in self._killed:
                _reap(child.pid)
                self._killed.discard(child.pid)
            elif self._is_of_a_task(child.pid) or began - dead_since > _ZOMBIE_SECONDS:
                _reap(child.pid)
            else:
                dead[identity] = dead_since
        self._dead_since = dead
        self._last_cost = time.monotonic() - began

    def _kill_if_over(self, child: _Child) -> None:
        pid = child.pid
        number = self._number_of(pid)
        if number in self._live or (number is None and not self._is_left_over(child)):
            return
        # It is our child and not reaped, so its number cannot have passed to another process.
        try:
            os.kill(pid, 0)
            if os.getpgid(pid) == pid:
                signal_group(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        except PermissionError:
            return  # it runs as another user (a program with the setuid bit): it is reaped when it ends
        self._killed.add(pid)

    def _number_of(self, pid: int) -> str | None:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            return None  # it has died, or changed its user
        tags = [entry for entry in entries if entry.startswith(self._prefix)]
        return tags[0].removeprefix(self._prefix).decode() if tags else None

    def _is_left_over(self, child: _Child) -> bool:
        """Whether a process without a tag belongs to an attempt that is over."""
        if not self._is_of_a_task(child.pid):
            return False
        return not any(since <= child.started for since in self._at_work.values())

    def _is_of_a_task(self, pid: int) -> bool:
        """Whether a process, alive or dead, is in the control group. False if there is none."""
        return self._control_group is not None and self._control_group.holds(pid)

    async def close(self, patience_seconds: float = 1.0) -> None:
        """Kill what is left of all attempts, for at most this time, and stop being the subreaper."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._is_subreaper:
            return
        deadline = time.monotonic() + patience_seconds
        self.sweep()
        while self._killed and time.monotonic() < deadline:
            await asyncio.sleep(_FIRST_PAUSE_SECONDS)
            self.sweep()
        self._is_subreaper = not _set_subreaper(is_on=False)


def _children(excluded: set[int]) -> Iterator[_Child]:
    """Give our children, except those whose owners wait for them.

    Reads the stat of every process: not every kernel has `/proc/PID/task/TID/children`.
    """
    me = str(os.getpid())
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in excluded:
            continue
        fields = _stat(int(name))
        if fields and fields[1] == me:
            yield _Child(int(name), started=int(fields[19]), is_dead=fields[0] == "Z")


def _stat(pid: int) -> list[str]:
    """Give what follows the name: state, parent and so on; [19] is the start time. Empty without such a process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            stat = file.read()
    except OSError:
        return []
    return stat[stat.rindex(")") + 2 :].split()


def _now() -> int:
    """Give the time as /proc/PID/stat has start times: in ticks of the clock since the boot."""
    return int(time.clock_gettime(_BOOT_CLOCK) * _TICKS_PER_SECOND)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # its owner has reaped it
        os.waitpid(pid, os.WNOHANG)


def _set_subreaper(*, is_on: bool) -> bool:
    """Whether it worked."""
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) == 0)
