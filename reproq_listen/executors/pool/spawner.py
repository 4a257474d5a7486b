"""Where the pool's children come from: forked from the template, a few at a time, with pauses after failures."""

import asyncio
import os
from collections.abc import Callable

from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import Forked, ForkJob, Forkserver
from reproq_listen.executors.pool.channels import ChildChannels
from reproq_listen.executors.pool.child import Limits, Pool, PoolChild
from reproq_listen.executors.process.exits import Exit
from reproq_listen.executors.process.limits import limit_memory
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.model import ExecutorSettings

_AT_ONCE = 4
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0


class ChildSpawner:
    """Owns template and cleanup, and the children that are not started_at yet."""

    def __init__(
        self,
        settings: ExecutorSettings,
        limits: Limits,
        most: int,
        forkserver: Forkserver,
        cleanup: ProcessCleanup,
        oom: OomCounter,
        warn: Callable[[str], None],
    ) -> None:
        """`most`: there are never more children than this. `warn` is told why there are none."""
        self._settings = settings
        self._limits = limits
        self._most = most
        self._forkserver = forkserver
        self._cleanup = cleanup
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
        return self._retry is not None or not self._forkserver.is_there

    @property
    def is_lost(self) -> bool:
        """Whether they may not be had for long."""
        return self._forkserver.is_lost

    @property
    def template_pid(self) -> int | None:
        return self._forkserver.pid

    @property
    def control_group(self) -> str:
        return self._cleanup.control_group

    async def open(self) -> None:
        """Boot the template. Raises ForkserverError."""
        await self._forkserver.start()

    async def reload(self) -> None:
        """Children started_at from now on run the code as it is now."""
        await self._forkserver.reload()

    def ensure(self, count: int, alive: int, pool: Pool, started_at: Callable[[PoolChild], None]) -> None:
        """Have `count` children, of which so many are alive. Each is handed to `started_at` when it is there."""
        if self._is_closing or self.is_pausing:
            return
        missing = min(count, self._most) - alive - len(self._forks)
        for _ in range(min(missing, _AT_ONCE - len(self._forks))):
            fork = asyncio.create_task(self._fork(pool, started_at))
            self._forks.add(fork)
            fork.add_done_callback(self._forks.discard)

    def succeeded(self) -> None:
        """A child has done something: the next failure is the first one again."""
        self._pause = _FIRST_PAUSE_SECONDS

    def failed(self, why: str, then: Callable[[], None]) -> None:
        """No children for a while; then call."""
        self._warn(why)
        if self._retry is None and not self._is_closing:
            self._retry = asyncio.get_running_loop().call_later(self._pause, self._try_again, then)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    async def stop_starting(self) -> None:
        """Let nobody be started_at any more."""
        self._is_closing = True
        if self._retry is not None:
            self._retry.cancel()
        for fork in self._forks:
            fork.cancel()
        if self._forks:
            await asyncio.wait(self._forks)

    async def close(self) -> None:
        """All children have been reaped: let go of the template and of what they left."""
        await self._forkserver.close()
        await self._cleanup.close()

    def _try_again(self, then: Callable[[], None]) -> None:
        self._retry = None
        then()

    async def _fork(self, pool: Pool, started_at: Callable[[PoolChild], None]) -> None:
        number = self._cleanup.next_number()
        oom_kills = self._oom.read()
        try:
            channels = ChildChannels(asyncio.get_running_loop(), lambda: child.look())
        except OSError as error:
            self.failed(f"no descriptors for a child of the pool: {error}", pool.may_fork_again)
            return
        mark = self._cleanup.environment(number)
        try:
            forked = await self._forkserver.fork(ForkJob(entry="pool", fds=channels.fds_for_child, environment=mark))
        except OSError as error:
            channels.close()
            self.failed(f"no child could be forked for the pool: {error}", pool.may_fork_again)
            return
        except asyncio.CancelledError:
            channels.close()
            raise
        channels.child_has_its_ends()
        self._cleanup.began(number, forked.pid)
        settings = self._settings
        limit_memory(forked.pid, settings.memory_bytes)
        channels.send_greeting(
            settings.allowed_task_modules, settings.max_stdout_bytes, settings.max_memory_per_child_bytes
        )
        child = PoolChild(
            pool, channels, forked.pid, self._limits, oom_kills, lambda then: self._reap(number, forked, then)
        )
        started_at(child)

    def _reap(self, number: str, forked: Forked, then: Callable[[Exit], None]) -> None:
        def done(end: Exit) -> None:
            self._cleanup.ended(number)
            then(end)

        self._cleanup.before_reaping(forked.pid)
        forked.reap(done)
