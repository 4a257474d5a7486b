"""The forkserver as the executors use it: forks on request, is started again when it dies, reloaded on demand.

One process forks. After a reload, older ones live until their children have ended. A forkserver that cannot boot at
the start is an error of the worker. One that dies later is started again, with growing pauses.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from reproq_listen.errors import ForkserverError, UnshareableImportsError
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.client import ForkserverClient
from reproq_listen.executors.forkserver.launch import ForkserverProcess, ForkserverSettings
from reproq_listen.executors.forkserver.server_script import UNSHAREABLE_STATUS
from reproq_listen.executors.process.environment import environment_for_children
from reproq_listen.executors.process.exits import Exit
from reproq_listen.executors.start_backoff import OnPause
from reproq_listen.model import ExecutorSettings

_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 30.0
_SETTLED_SECONDS = 60.0
"""After a forkserver that lived this long, the pauses start from the beginning."""


_ENTRIES = {"task": b"T", "idle task": b"W", "pool": b"P"}


class NoForkserverError(OSError):
    """There is no forkserver, and there may be none for long."""


class ForkJob(Struct, frozen=True):
    """What a child is for.

    `task` reads its arguments from stdin (`task_arguments`), then runs the executor module with them as `python -m`
    would; `idle task` is one that may wait for long; `pool` runs the pool's `serve` on the descriptors after the first
    three. The first three of `fds` become 0, 1 and 2. A fourth one of a `task` is the result pipe of our own module.
    All stay the caller's, to be closed after the fork.
    """

    entry: Literal["task", "idle task", "pool"]
    fds: tuple[int, ...]
    tag: str
    """Of ProcessCleanup."""


class Forked:
    """A child of a forkserver. It keeps its pid until it is reaped, which must be done once."""

    def __init__(self, pid: int, client: ForkserverClient) -> None:
        self.pid = pid
        self.client = client

    def reap(self, on_exit: Callable[[Exit], None]) -> None:
        """Call when the process has ended (ExitWatch); `on_exit` is called with how it ended."""
        self.client.reap(self.pid, on_exit)


class Forkserver:
    """The process that children are forked from. Owns it, its successors, and its retired predecessors."""

    def __init__(
        self,
        settings: ForkserverSettings,
        cleanup: ProcessCleanup,
        warn: Callable[[str], None],
        on_pause: OnPause,
        on_return: Callable[[], None],
    ) -> None:
        """`on_pause` is called while there is no forkserver, with the reason and the seconds until the next try;
        `on_return` when there is one where there was none."""
        self._settings = settings
        self._timings = settings.timings
        self._cleanup = cleanup
        self._warn = warn
        self._on_pause = on_pause
        self._on_return = on_return
        self._current: ForkserverProcess | None = None
        self._retired: set[ForkserverProcess] = set()
        self._booting: asyncio.Task[None] | None = None
        self._is_decided = asyncio.Event()
        """Set unless forks wait for a forkserver that is being started."""
        self._wait_timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._pause = _FIRST_PAUSE_SECONDS
        self._problem = "it has not been started"

    @property
    def pid(self) -> int | None:
        """The process that forks now."""
        return self._current.client.pid if self._current else None

    @property
    def is_there(self) -> bool:
        """Whether a child can be forked at once."""
        return self._current is not None

    @property
    def is_lost(self) -> bool:
        """Whether a fork would raise NoForkserverError."""
        return self._current is None and self._is_decided.is_set()

    async def start(self) -> None:
        """Boot the first process. Raises ForkserverError, with what it wrote, if it cannot boot."""
        self._take_over(await self._boot())

    async def reload(self) -> None:
        """Fork from a new process from now on; children of the old one finish.

        Does not raise: if the new process cannot boot, the old one stays, and `warn` gets the reason.
        """
        try:
            fresh = await self._boot()
        except ForkserverError as error:
            self._warn(f"the code cannot be reloaded, the old code stays: {error}")
            return
        if self._is_closing:
            fresh.client.kill()
            return
        self._take_over(fresh)

    async def fork(self, job: ForkJob) -> Forked:
        """Fork a child.

        Raises OSError if that is not possible: NoForkserverError if it is not the job's fault; ForkserverGoneError if
        the forkserver has just died: then try again, with other descriptors and another number.
        """
        await self._is_decided.wait()
        current = self._current
        if current is None or self._is_closing:
            raise NoForkserverError(f"there is no forkserver to fork from: {self._problem}")
        pid = await current.client.fork(_ENTRIES[job.entry], job.tag, job.fds)
        return Forked(pid, current.client)

    def has_forked(self, forked: Forked) -> bool:
        """Whether the child comes from the process that forks now, and so has its code."""
        return self._current is not None and self._current.client is forked.client

    async def close(self) -> None:
        """Let the processes end. Children should have been reaped before; the guard kills what is left."""
        self._is_closing = True
        if self._booting is not None:
            self._booting.cancel()
            self._decide()
            with contextlib.suppress(asyncio.CancelledError):
                await self._booting
        processes = [*self._retired, *([self._current] if self._current else [])]
        for process in processes:
            process.client.close()
        for process in processes:
            try:
                async with asyncio.timeout(self._timings.close_seconds):
                    await process.has_ended.wait()
            except TimeoutError:
                process.client.kill()
                await process.has_ended.wait()

    async def _boot(self) -> ForkserverProcess:
        """Raises ForkserverError."""
        limit = self._timings.boot_seconds
        try:
            self._cleanup.ready()
            process = ForkserverProcess(self._settings, self._cleanup, self._ended)
        except OSError as error:
            raise ForkserverError(f"no forkserver process could be started: {error}") from None
        try:
            async with asyncio.timeout(limit):
                message = await asyncio.shield(process.client.is_up)
        except TimeoutError:
            process.client.kill()
            await process.has_ended.wait()
            raise ForkserverError(f"the imports did not end within {limit:g} s\n{process.output()}") from None
        except ChildProcessError as error:
            await process.has_ended.wait()
            if process.status == UNSHAREABLE_STATUS:
                raise UnshareableImportsError(process.output()) from None
            raise ForkserverError(
                f"the imports failed ({error}); look at --executor-module, --preload, --python-bin and "
                f"DJANGO_SETTINGS_MODULE\n{process.output()}".rstrip()
            ) from None
        except BaseException:
            process.client.kill()
            await process.has_ended.wait()
            raise
        if b"true" not in message:
            self._warn("children cannot be tagged on this system: one that leaves its group may not be found")
        process.is_up = True
        return process

    def _take_over(self, process: ForkserverProcess) -> None:
        former, self._current = self._current, process
        self._decide()
        if former is not None:
            self._retired.add(former)
            former.client.retire()
        else:
            self._on_return()

    def _decide(self) -> None:
        if self._wait_timer is not None:
            self._wait_timer.cancel()
        self._is_decided.set()

    def _ended(self, process: ForkserverProcess, status: int) -> None:
        self._retired.discard(process)
        if process is not self._current:
            return
        self._current = None
        if self._is_closing:
            return
        loop = asyncio.get_running_loop()
        self._is_decided.clear()
        self._wait_timer = loop.call_later(self._timings.wait_seconds, self._decide)
        self._problem = f"it ended with status {status}"
        self._warn(
            f"the forkserver process ended with status {status}; it is started again\n{process.output()}".rstrip()
        )
        if process.age > _SETTLED_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self._on_pause(f"the forkserver process ended with status {status}", self._pause)
        self._booting = loop.create_task(self._boot_again())

    async def _boot_again(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _MAX_PAUSE_SECONDS)
            try:
                fresh = await self._boot()
            except Exception as error:  # noqa: BLE001 - whatever it is: without a forkserver no task is claimed
                self._problem = str(error) if isinstance(error, ForkserverError) else repr(error)
                self._decide()
                self._warn(f"the forkserver cannot be started again: {self._problem}")
                self._on_pause(f"the forkserver cannot be started again: {self._problem.splitlines()[0]}", self._pause)
            else:
                break
        self._booting = None
        self._take_over(fresh)


def make_forkserver(
    settings: ExecutorSettings,
    cleanup: ProcessCleanup,
    warn: Callable[[str], None],
    on_pause: OnPause,
    on_return: Callable[[], None],
    *,
    with_pool: bool = False,
) -> Forkserver:
    """Make a forkserver with these settings, to be started later. `on_pause` and `on_return`: see Forkserver."""
    made_of = ForkserverSettings(
        python_bin=settings.python_bin,
        module=settings.executor_module,
        preload=settings.preload,
        environment=environment_for_children(settings),
        timings=settings.forkserver_timings,
        open_files=settings.open_files,
        memory_bytes=settings.memory_bytes,
        with_pool=with_pool,
    )
    return Forkserver(made_of, cleanup, warn, on_pause, on_return)
