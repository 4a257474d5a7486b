"""Finding what left its process group: the worker is the subreaper of its children's orphans (Linux).

A process that made a session of its own is not reached by signals to its attempt's group. When its parent
dies the kernel makes it a child of the worker, where it is found by the mark in its environment, killed if its
attempt is over, and reaped. One that also wiped its environment is known by the worker's control group, if there is
one, and killed when all attempts are over that were there when it started: it must be of one of those. One that lives
on in its child again and again, each for a moment, is looked for while that group stands still. Without a control group
both are reaped, but not killed.
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
from reproq_listen.protocol.executor import MARK_ENV

_PR_SET_CHILD_SUBREAPER = 36
_FIRST_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 8.0
_ZOMBIE_SECONDS = 2.0
"""A dead child is left this long to whoever in this process may have started it, before it is reaped here."""
_RESTLESS_SWEEPS = 2
"""Where dead ones of tasks are found more often on end, one may be alive that never is: it is born, and lives on in its
child, between two looks."""
_FROZEN_SWEEPS = 4
_FROZEN_PAUSE_SECONDS = 0.002
_FROZEN_DUTY = 100
"""As below: all tasks stand still meanwhile."""
_DUTY = 20
"""A sweep may cost one part in this many of the time: reading /proc of a crowded host is not free."""


class _Child(NamedTuple):
    pid: int
    started: int
    """Ticks of the clock since the boot."""
    is_dead: bool


class Orphans:
    """Sweeps adopted children: soon after an attempt ended, and ever more rarely while nothing begins or ends."""

    def __init__(self, mark: str) -> None:
        self.sweeps = 0
        self.control_group: ControlGroup | None = None
        self._prefix = f"{MARK_ENV}={mark}.".encode()
        self._live: dict[str, int] = {}
        self._templates: set[str] = set()
        self._killed: set[int] = set()
        self._dead_since: dict[tuple[int, int], float] = {}
        self._restless = 0
        """So many sweeps on end have found dead ones of tasks."""
        self._frozen_again = 0.0
        self._may_hide = False
        """An attempt has ended since no sweep could miss anything."""
        self._timer: asyncio.TimerHandle | None = None
        self._last_cost = 0.0
        self._pause = _PAUSE_SECONDS
        self._is_subreaper = False

    def adopt(self) -> None:
        """Become the subreaper. Does nothing where the kernel has no such thing."""
        if sys.platform == "linux":
            self._is_subreaper = _set_subreaper(is_on=True)

    def began(self, number: str, pid: int, *, is_template: bool) -> None:
        """An attempt has started: its own process is reaped by its owner, its orphans are left alone."""
        self._live[number] = pid
        if is_template:
            self._templates.add(number)
        self._pause = _PAUSE_SECONDS
        self._schedule(_PAUSE_SECONDS)

    def ended(self, number: str) -> None:
        """An attempt is over and its own process reaped: whatever else carries its mark must go."""
        del self._live[number]
        self._templates.discard(number)
        self._may_hide = True
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
        if self._restless > _RESTLESS_SWEEPS and self._may_hide and time.monotonic() > self._frozen_again:
            self._sweep_frozen()
        if self._killed:
            self._schedule(_FIRST_PAUSE_SECONDS)  # the children of the killed turn up next
        elif self._dead_since or self._restless:
            self._schedule(_PAUSE_SECONDS)
        elif self._live:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            self._schedule(self._pause)

    def sweep(self) -> None:
        """Kill the adopted whose attempt is over; reap the dead."""
        self.sweeps += 1
        began = time.monotonic()
        dead: dict[tuple[int, int], float] = {}
        reaped = 0
        for child in _children(set(self._live.values())):
            identity = (child.pid, child.started)
            if not child.is_dead:
                self._kill_if_over(child)
            elif child.pid in self._killed:
                _reap(child.pid)
                self._killed.discard(child.pid)
            elif self._is_of_a_task(child.pid):
                _reap(child.pid)
                reaped += 1
            elif began - self._dead_since.get(identity, began) > _ZOMBIE_SECONDS:
                _reap(child.pid)
            else:
                dead[identity] = self._dead_since.get(identity, began)
        self._dead_since = dead
        self._restless = self._restless + 1 if reaped else 0
        self._last_cost = time.monotonic() - began

    def _sweep_frozen(self) -> None:
        """While nothing is born between two looks, nothing is missed."""
        assert self.control_group is not None, "or there is no telling that the dead are of tasks"
        began = time.monotonic()
        with contextlib.suppress(OSError), self.control_group.frozen() as is_frozen:
            for _ in range(_FROZEN_SWEEPS):
                self.sweep()
                time.sleep(_FROZEN_PAUSE_SECONDS)  # the killed die, and their children turn up
            self._may_hide = not is_frozen or bool(self._killed)
        self._frozen_again = time.monotonic() + _FROZEN_DUTY * (time.monotonic() - began)

    def _kill_if_over(self, child: _Child) -> None:
        pid = child.pid
        number = self._attempt_of(pid)
        if number in self._live or (number is None and not self._is_left_over(child)):
            return
        # It is our child and not reaped, so its number cannot have passed to a stranger.
        self._killed.add(pid)
        if os.getpgid(pid) == pid:
            signal_group(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)

    def _attempt_of(self, pid: int) -> str | None:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                entries = file.read().split(b"\0")
        except OSError:
            return None  # dead meanwhile, or it changed its user
        marks = [entry for entry in entries if entry.startswith(self._prefix)]
        return marks[0].removeprefix(self._prefix).decode() if marks else None

    def _is_left_over(self, child: _Child) -> bool:
        """Whether an unmarked process is of an attempt that is over."""
        if not self._is_of_a_task(child.pid):
            return False
        attempts = (pid for number, pid in self._live.items() if number not in self._templates)
        return not any(_started(pid) <= child.started for pid in attempts)

    def _is_of_a_task(self, pid: int) -> bool:
        """Also of a dead one. False if that is not known."""
        return self.control_group is not None and self.control_group.holds(pid)

    async def close(self, patience_seconds: float = 1.0) -> None:
        """Kill what is left of all attempts, within the patience, and stop being the subreaper."""
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


def _children(waited_for: set[int]) -> Iterator[_Child]:
    """Our children but for those that their owners wait for.

    Reads the stat of every process: `/proc/PID/task/TID/children` is not there on every kernel.
    """
    me = str(os.getpid())
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in waited_for:
            continue
        fields = _stat(int(name))
        if fields and fields[1] == me:
            yield _Child(int(name), started=int(fields[19]), is_dead=fields[0] == "Z")


def _stat(pid: int) -> list[str]:
    """What follows the name: state, parent and so on; [19] is the start time. Empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            stat = file.read()
    except OSError:
        return []
    return stat[stat.rindex(")") + 2 :].split()


def _started(pid: int) -> int:
    """When a process started, in ticks of the clock since the boot; 0 if there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # whoever started it has waited for it
        os.waitpid(pid, os.WNOHANG)


def _set_subreaper(*, is_on: bool) -> bool:
    """Whether it worked."""
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) == 0)
