"""What ties child processes to the worker, so that none outlives its attempt or the worker.

- The **guard** kills all process groups when the worker dies.
- A **tag** in the environment identifies what has left its group.
- As **subreaper**, the worker becomes the parent of orphans.
- Where it can be made, a **control group** also holds what has changed its environment.
"""

import itertools
import secrets
from collections.abc import Callable

from reproq_listen.executors.cleanup.cgroup import ControlGroup
from reproq_listen.executors.cleanup.guard import Guard
from reproq_listen.executors.cleanup.orphans import Orphans
from reproq_listen.executors.process.limits import forbid_core_dumps
from reproq_listen.protocol.executor import TAG_ENV


class ProcessCleanup:
    """Owns the guard and the sweeps for orphans. One per executor; bound to one event loop."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """`warn` is called with what an operator should know and no task is to blame for."""
        self._tag = secrets.token_hex(8)
        self._warn = warn
        self._numbers = itertools.count(1)
        self._group: ControlGroup | None = None
        self._guard: Guard | None = None
        self._orphans: Orphans | None = None
        self.control_group = ""
        """The folder of the control group, or `none` and the reason; empty before `ready`."""

    @property
    def guard_pid(self) -> int | None:
        """The guard's process, or None before `ready`."""
        return self._guard.pid if self._guard is not None else None

    @property
    def sweeps(self) -> int:
        """The number of sweeps for orphans so far."""
        return self._orphans.sweeps if self._orphans is not None else 0

    @property
    def guarded_groups(self) -> frozenset[int]:
        """The process groups that die with the worker."""
        return self._guard.groups if self._guard is not None else frozenset()

    def ready(self) -> None:
        """Call before a child is started. Raises OSError if the guard cannot be started."""
        if self._guard is None:
            self._group = self._make_control_group()
            folder = self._group.folder if self._group is not None else None
            self._guard = Guard(self._tag, folder, self._warn)
            self._orphans = Orphans(self._tag, self._group)
        self._guard.ensure()
        self._started_orphans.become_subreaper()
        forbid_core_dumps()

    def _make_control_group(self) -> ControlGroup | None:
        try:
            group = ControlGroup(self._tag)
        except OSError as error:
            self.control_group = f"none: {error}"
            return None
        self.control_group = str(group.folder)
        return group

    @property
    def _started_guard(self) -> Guard:
        assert self._guard is not None, "call ready() first"
        return self._guard

    @property
    def _started_orphans(self) -> Orphans:
        assert self._orphans is not None, "call ready() first"
        return self._orphans

    def enclose(self, pid: int) -> None:
        """Put a process into the control group, if there is one, before it is given anything to do.

        Children of a forkserver that is in the group are in it too.
        """
        if self._group is None:
            return
        try:
            self._group.add(pid)
        except ProcessLookupError:
            pass  # it has ended already
        except OSError as error:
            self._group = None
            self.control_group = f"none: {error}"
            self._warn(f"children are not put into their control group any more: {error}")

    def run_at_the_end(self, module: str, data: bytes) -> None:
        """See Guard.run_at_the_end."""
        self._started_guard.run_at_the_end(module, data)

    def next_number(self) -> str:
        """Give a number to the next child. All have the same length: a forked child overwrites another's."""
        return f"{next(self._numbers):010}"

    def tag(self, number: str) -> str:
        """Give what tags the child of this number, and all that it starts."""
        return f"{self._tag}.{number}"

    def environment(self, number: str) -> dict[str, str]:
        """Give the variable with the tag."""
        return {TAG_ENV: self.tag(number)}

    def began(self, number: str, pid: int, *, has_work: bool = True) -> None:
        """Register a child that leads, or is about to lead, the group `pid`. Call before it is given work.

        Without `has_work` it runs no code of a task until `given_work`, or never (a forkserver).
        """
        self._started_guard.add(pid)
        self._started_orphans.began(number, pid)
        if has_work:
            self._started_orphans.given_work(number)

    def given_work(self, number: str) -> None:
        """A child that began without work is about to get some."""
        self._started_orphans.given_work(number)

    def before_reaping(self, pid: int) -> None:
        """Call while the dead child still holds its number: from now on another process may get it."""
        self._started_guard.remove(pid)

    def ended(self, number: str) -> None:
        """The child is reaped: everything else with its tag will be killed."""
        self._started_orphans.ended(number)

    async def close(self) -> None:
        """Kill what is left of all children, and end the guard."""
        if self._orphans is not None:
            await self._orphans.close()
        if self._guard is not None:
            await self._guard.close()
