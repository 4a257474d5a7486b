"""Starting the pool's children: forked from the forkserver, a few at a time, with pauses after failures."""

import asyncio
import os
from collections.abc import Callable

from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import Forked, ForkJob, Forkserver
from reproq_listen.executors.pool.channels import ChildChannels
from reproq_listen.executors.pool.child import Pool, PoolChild
from reproq_listen.executors.process.exits import Exit
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.executors.start_backoff import OnPause, StartBackoff
from reproq_listen.model import ExecutorSettings

_MAX_FORKS = 4
"""At a time."""


class ChildSpawner:
    """Owns the forkserver and the cleanup, and children until they are started."""

    def __init__(
        self,
        pool: Pool,
        settings: ExecutorSettings,
        max_children: int,
        forkserver: Forkserver,
        cleanup: ProcessCleanup,
        oom: OomCounter,
        *,
        on_pause: OnPause,
        on_started: Callable[[PoolChild], None],
        on_retry: Callable[[], None],
    ) -> None:
        """`on_pause` is called with the reason when children cannot be started, `on_started` with each new child, and
        `on_retry` when a pause after a failure is over."""
        self._pool = pool
        self._settings = settings
        self._max_children = max_children
        self._forkserver = forkserver
        self._cleanup = cleanup
        self._oom = oom
        self._on_started = on_started
        self._backoff = StartBackoff(on_pause, on_retry)
        self._forks: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self.min_children = min(max_children, os.cpu_count() or 1)
        """The number of children that are kept ready."""

    @property
    def is_pausing(self) -> bool:
        """Whether no child can be started just now."""
        return self._backoff.is_pausing or not self._forkserver.is_there

    @property
    def is_lost(self) -> bool:
        """Whether no child may be started for long."""
        return self._backoff.is_pausing or self._forkserver.is_lost

    @property
    def forkserver_pid(self) -> int | None:
        return self._forkserver.pid

    @property
    def control_group(self) -> str:
        return self._cleanup.control_group

    def run_if_killed(self, module: str, data: bytes) -> None:
        """See PoolExecutor.run_if_killed."""
        self._cleanup.run_at_the_end(module, data)

    async def open(self) -> None:
        """Boot the forkserver. Raises ForkserverError."""
        await self._forkserver.start()

    async def reload(self) -> None:
        """Children that are started from now on run the current code."""
        await self._forkserver.reload()

    def ensure(self, count: int, alive: int) -> None:
        """Have `count` children; `alive` of them are started already."""
        if self._is_closing or self.is_pausing:
            return
        missing = min(count, self._max_children) - alive - len(self._forks)
        for _ in range(min(missing, _MAX_FORKS - len(self._forks))):
            fork = asyncio.create_task(self._start_child())
            self._forks.add(fork)
            fork.add_done_callback(self._forks.discard)

    def succeeded(self) -> None:
        """A child has run a task."""
        self._backoff.succeeded()

    def failed(self, why: str) -> None:
        """Start no child for a while, unless it was the first failure in a row."""
        self._backoff.failed(why)

    async def stop_starting(self) -> None:
        """Start no child any more."""
        self._is_closing = True
        self._backoff.close()
        for fork in self._forks:
            fork.cancel()
        if self._forks:
            await asyncio.wait(self._forks)

    async def close(self) -> None:
        """Close the forkserver, and kill what children have left. Call when all children have been reaped."""
        await self._forkserver.close()
        await self._cleanup.close()

    async def _start_child(self) -> None:
        number = self._cleanup.next_number()
        try:
            channels = ChildChannels(asyncio.get_running_loop(), lambda: child.poll())
        except OSError as error:
            self.failed(f"no descriptors for a child of the pool: {error}")
            return
        tag = self._cleanup.tag(number)
        try:
            forked = await self._forkserver.fork(ForkJob(entry="pool", fds=channels.fds_for_child, tag=tag))
        except OSError as error:
            channels.close()
            self.failed(f"no child could be forked for the pool: {error}")
            return
        except asyncio.CancelledError:
            channels.close()
            raise
        channels.child_started()
        self._cleanup.began(number, forked.pid)
        settings = self._settings
        channels.send_settings(
            settings.allowed_task_modules, settings.max_stdout_bytes, settings.max_memory_per_child_bytes
        )
        child = PoolChild(
            self._pool, channels, forked.pid, settings, self._oom, lambda on_exit: self._reap(number, forked, on_exit)
        )
        self._on_started(child)

    def _reap(self, number: str, forked: Forked, on_exit: Callable[[Exit], None]) -> None:
        def reaped(exit_: Exit) -> None:
            self._cleanup.ended(number)
            on_exit(exit_)

        self._cleanup.before_reaping(forked.pid)
        forked.reap(reaped)
