"""Where the pool's children come from: forked from the template, a few at a time, with pauses after failures."""

import asyncio
import os
from collections.abc import Callable

from reproq_listen.executors.cleanup.cleanup import Lifelines
from reproq_listen.executors.forkserver.forkserver import Forked, ForkJob, Template
from reproq_listen.executors.pool.channels import Roads
from reproq_listen.executors.pool.child import Limits, Member, Pool
from reproq_listen.executors.process.exits import Exit
from reproq_listen.executors.process.limits import limit_memory
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.model import ExecutorSettings

_AT_ONCE = 4
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


class Nursery:
    """Owns template and lifelines, and the children that are not born yet."""

    def __init__(
        self,
        settings: ExecutorSettings,
        limits: Limits,
        most: int,
        template: Template,
        lifelines: Lifelines,
        oom: OomCounter,
        warn: Callable[[str], None],
    ) -> None:
        """`most`: there are never more children than this. `warn` is told why there are none."""
        self._settings = settings
        self._limits = limits
        self._most = most
        self._template = template
        self._lifelines = lifelines
        self._oom = oom
        self._warn = warn
        self._forks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._pause = _FIRST_PAUSE_SECONDS
        self._retry: asyncio.TimerHandle | None = None
        self.least = min(most, os.cpu_count() or 1)
        """So many are kept ready."""

    @property
    def is_pausing(self) -> bool:
        """Whether children cannot be had just now."""
        return self._retry is not None or not self._template.is_there

    @property
    def is_barren(self) -> bool:
        """Whether they may not be had for long."""
        return self._template.is_lost

    @property
    def template_pid(self) -> int | None:
        return self._template.pid

    @property
    def control_group(self) -> str:
        return self._lifelines.control_group

    async def open(self) -> None:
        """Boot the template. Raises TemplateError."""
        await self._template.start()

    async def reload(self) -> None:
        """Children born from now on run the code as it is now."""
        await self._template.reload()

    def raise_to(self, count: int, alive: int, pool: Pool, born: Callable[[Member], None]) -> None:
        """Have `count` children, of which so many are alive. Each is handed to `born` when it is there."""
        if self._is_closing or self.is_pausing:
            return
        missing = min(count, self._most) - alive - len(self._forks)
        for _ in range(min(missing, _AT_ONCE - len(self._forks))):
            fork = asyncio.create_task(self._fork(pool, born))
            self._forks.add(fork)
            fork.add_done_callback(self._forks.discard)

    def went_well(self) -> None:
        """A child has done something: the next failure is the first one again."""
        self._pause = _FIRST_PAUSE_SECONDS

    def went_wrong(self, why: str, then: Callable[[], None]) -> None:
        """No children for a while; then call."""
        self._warn(why)
        if self._retry is None and not self._is_closing:
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again, then)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    async def no_more(self) -> None:
        """Let nobody be born any more."""
        self._is_closing = True
        if self._retry is not None:
            self._retry.cancel()
        for fork in self._forks:
            fork.cancel()
        if self._forks:
            await asyncio.wait(self._forks)

    async def close(self) -> None:
        """All children have been reaped: let go of the template and of what they left."""
        await self._template.close()
        await self._lifelines.close()

    def _try_again(self, then: Callable[[], None]) -> None:
        self._retry = None
        then()

    async def _fork(self, pool: Pool, born: Callable[[Member], None]) -> None:
        number = self._lifelines.next_number()
        oom_kills = self._oom.read()
        try:
            roads = Roads(asyncio.get_running_loop(), lambda: member.look())
        except OSError as error:
            self.went_wrong(f"no descriptors for a child of the pool: {error}", pool.may_fork_again)
            return
        mark = self._lifelines.environment(number)
        try:
            forked = await self._template.fork(ForkJob(entry="pool", fds=roads.fds_for_child, environment=mark))
        except OSError as error:
            roads.close()
            self.went_wrong(f"no child could be forked for the pool: {error}", pool.may_fork_again)
            return
        except asyncio.CancelledError:
            roads.close()
            raise
        roads.child_has_its_ends()
        self._lifelines.began(number, forked.pid)
        settings = self._settings
        limit_memory(forked.pid, settings.memory_bytes)
        roads.greet(settings.allowed_task_modules, settings.max_stdout_bytes, settings.max_memory_per_child_bytes)
        member = Member(pool, roads, forked.pid, self._limits, oom_kills, lambda then: self._reap(number, forked, then))
        born(member)

    def _reap(self, number: str, forked: Forked, then: Callable[[Exit], None]) -> None:
        def done(end: Exit) -> None:
            self._lifelines.ended(number)
            then(end)

        self._lifelines.before_reaping(forked.pid)
        forked.reap(done)
