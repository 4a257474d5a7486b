"""What ties child processes to this one, so that none outlives its attempt or its worker.

Three cords: the guard kills all groups when this process dies; the mark in the environment leads to whatever left
its group; and as the subreaper this process is given the orphans. Where a control group can be had it is the fourth:
it also holds what has wiped its environment.
"""

import itertools
import secrets
from collections.abc import Callable

from reproq_listen.executors.cleanup.cgroup import ControlGroup
from reproq_listen.executors.cleanup.guard import Guard
from reproq_listen.executors.cleanup.orphans import Orphans
from reproq_listen.executors.process.limits import forbid_core_dumps
from reproq_listen.protocol.executor import MARK_ENV


class ProcessCleanup:
    """Owns the guard and the sweeps. One an executor; bound to one event loop."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """`warn` is told what an operator should know and no task is to blame for."""
        mark = secrets.token_hex(8)
        self._mark = mark
        self._warn = warn
        self._numbers = itertools.count(1)
        self._guard = Guard(mark, warn)
        self._orphans = Orphans(mark)
        self._control_group: ControlGroup | None = None
        self.control_group = ""
        """Its folder, or `none` and why, once `ready` has been called."""

    @property
    def guard_pid(self) -> int | None:
        """The guard's process, or None before `ready`."""
        return self._guard.pid

    @property
    def sweeps(self) -> int:
        """How often orphans have been looked for."""
        return self._orphans.sweeps

    def ready(self) -> None:
        """To be called before a child is started. Raises OSError if there is no guard to be had."""
        if not self.control_group:
            self._make_control_group()
        self._guard.ensure()
        self._orphans.adopt()
        forbid_core_dumps()

    def _make_control_group(self) -> None:
        try:
            group = ControlGroup(self._mark)
        except OSError as error:
            self.control_group = f"none: {error}"
            return
        self.control_group = str(group.folder)
        self._control_group = self._orphans.control_group = group
        self._guard.control_group = group.folder

    def enclose(self, pid: int) -> None:
        """Put a process that this one has started into the control group, if there is one. What a template forks is
        born there. To be called before the process is given anything to do."""
        if self._control_group is None:
            return
        try:
            self._control_group.add(pid)
        except ProcessLookupError:
            pass  # it has ended already
        except OSError as error:
            self._control_group = None
            self.control_group = f"none: {error}"
            self._warn(f"children are not put into their control group any more: {error}")

    def next_number(self) -> str:
        """A number for the next child. All have the same length: a forked child writes its own over another's."""
        return f"{next(self._numbers):010}"

    def environment(self, number: str) -> dict[str, str]:
        """What marks the child of this number, and all that it starts."""
        return {MARK_ENV: f"{self._mark}.{number}"}

    def began(self, number: str, pid: int, *, is_template: bool = False) -> None:
        """A child leads (or is about to lead) the group `pid`. To be called before it is given anything to do."""
        self._guard.add(pid)
        self._orphans.began(number, pid, is_template=is_template)

    def before_reaping(self, pid: int) -> None:
        """Its number may pass to a stranger from now on."""
        self._guard.remove(pid)

    def ended(self, number: str) -> None:
        """The child is reaped: whatever else carries its mark must go."""
        self._orphans.ended(number)

    async def close(self) -> None:
        """Kill what is left of all children, and let go of guard and orphans."""
        await self._orphans.close()
        await self._guard.close()
