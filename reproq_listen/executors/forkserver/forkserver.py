"""The forkserver: a process that has imported the application, and is forked for each attempt (or child of the pool).

There is one that forks, and beside it, after a reload, older ones whose children have not ended. One that cannot
boot at the start is an error of the worker; one that dies later is started again, with growing pauses.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from reproq_listen.errors import ForkserverError
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.client import ForkserverClient
from reproq_listen.executors.forkserver.launch import ForkserverProcess, ForkserverSettings
from reproq_listen.executors.process.environment import environment
from reproq_listen.executors.process.exits import Exit
from reproq_listen.model import ExecutorSettings

_BOOT_SECONDS = 120.0
_WAIT_SECONDS = 30.0
"""A fork waits so long for a forkserver that is being started again, or until that has failed."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_SETTLED_SECONDS = 60.0
"""A forkserver that lived so long starts its successor's pauses from the beginning."""
_FAREWELL_SECONDS = 5.0


class NoForkserverError(OSError):
    """There is no forkserver, and there may not be one for long."""


class ForkJob(Struct, frozen=True):
    """What a child is for.

    `task` runs the executor module with `arguments`, as `python -m` would; `pool` runs the pool's `serve` on the
    descriptors after the first three. The first three of `fds` become 0, 1 and 2; a fourth one of a `task` is the
    result pipe, whose number it finds in its environment. All stay the caller's, to be closed after the fork.
    """

    entry: Literal["task", "pool"]
    fds: tuple[int, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    """In addition to the forkserver's: the mark at least (ProcessCleanup.environment)."""


class Forked:
    """A child of a forkserver. Its number stays its own until it is reaped, which must be asked for once."""

    def __init__(self, pid: int, link: ForkserverClient) -> None:
        self.pid = pid
        self._link = link

    def reap(self, then: Callable[[Exit], None]) -> None:
        """To be called when the process has ended (ExitWatch); `then` is told how."""
        self._link.reap(self.pid, then)


class Forkserver:
    """The warm process that children are forked from. Owns it, its successors, and its retired predecessors."""

    def __init__(
        self,
        settings: ForkserverSettings,
        cleanup: ProcessCleanup,
        warn: Callable[[str], None],
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_return` is called when there is a forkserver where there was none."""
        self._settings = settings
        self._cleanup = cleanup
        self._warn = warn
        self._on_return = on_return
        self._current: ForkserverProcess | None = None
        self._retired: set[ForkserverProcess] = set()
        self._booting: asyncio.Task[None] | None = None
        self._is_decided = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._pause = _FIRST_PAUSE_SECONDS
        self._problem = "it has not been started"

    @property
    def pid(self) -> int | None:
        """The process that forks now."""
        return self._current.link.pid if self._current else None

    @property
    def is_there(self) -> bool:
        """Whether a fork needs not wait."""
        return self._current is not None

    @property
    def is_lost(self) -> bool:
        """Whether a fork is no use: see NoForkserverError."""
        return self._current is None and self._is_decided.is_set()

    async def start(self) -> None:
        """Boot the first forkserver. Raises ForkserverError, with what it said, if it cannot."""
        self._take_over(await self._boot())

    async def reload(self) -> None:
        """Fork from a new forkserver from now on; children of the old one finish. Does not raise: if the new one
        cannot boot, the old one stays and the reason is warned of."""
        try:
            fresh = await self._boot()
        except ForkserverError as error:
            self._warn(f"the code cannot be loaded anew, the old code stays: {error}")
            return
        if self._is_closing:
            fresh.link.kill()
            return
        self._take_over(fresh)

    async def fork(self, job: ForkJob) -> Forked:
        """Give a new child.

        Raises OSError if there is none to be had; NoForkserverError if that says nothing about this job;
        ForkserverGoneError if the forkserver has just died: then try again, with other descriptors and another number.
        """
        await self._is_decided.wait()
        current = self._current
        if current is None or self._is_closing:
            raise NoForkserverError(f"there is no forkserver to fork from: {self._problem}")
        pid = await current.link.fork(job.entry, job.arguments, dict(job.environment), job.fds)
        return Forked(pid, current.link)

    async def close(self) -> None:
        """Let the forkservers end. Children should have been reaped before; what is left is the guard's."""
        self._is_closing = True
        if self._booting is not None:
            self._booting.cancel()
            self._decide()
            with contextlib.suppress(asyncio.CancelledError):
                await self._booting
        processes = [*self._retired, *([self._current] if self._current else [])]
        for process in processes:
            process.link.close()
        for process in processes:
            try:
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await process.has_ended.wait()
            except TimeoutError:
                process.link.kill()
                await process.has_ended.wait()

    async def _boot(self) -> ForkserverProcess:
        """Raises ForkserverError."""
        try:
            self._cleanup.ready()
            process = ForkserverProcess(self._settings, self._cleanup, self._died)
        except OSError as error:
            raise ForkserverError(f"no forkserver process could be started: {error}") from None
        try:
            async with asyncio.timeout(_BOOT_SECONDS):
                said = await asyncio.shield(process.link.is_up)
        except TimeoutError:
            process.link.kill()
            await process.has_ended.wait()
            raise ForkserverError(f"the imports did not end within {_BOOT_SECONDS:g} s\n{process.output()}") from None
        except ChildProcessError as error:
            await process.has_ended.wait()
            raise ForkserverError(
                f"the imports failed ({error}); look at --executor-module, --preload, --python-bin and "
                f"DJANGO_SETTINGS_MODULE\n{process.output()}".rstrip()
            ) from None
        except BaseException:
            process.link.kill()
            await process.has_ended.wait()
            raise
        if b"true" not in said:
            self._warn("children cannot be marked on this system: one that leaves its group may escape")
        process.is_up = True
        return process

    def _take_over(self, process: ForkserverProcess) -> None:
        former, self._current = self._current, process
        self._decide()
        if former is not None:
            self._retired.add(former)
            former.link.retire()
        else:
            self._on_return()

    def _decide(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._is_decided.set()

    def _died(self, process: ForkserverProcess, status: int) -> None:
        self._retired.discard(process)
        if process is not self._current:
            return
        self._current = None
        if self._is_closing:
            return
        loop = asyncio.get_running_loop()
        self._is_decided.clear()
        self._patience = loop.call_later(_WAIT_SECONDS, self._decide)
        self._problem = f"it ended with status {status}"
        self._warn(
            f"the forkserver process ended with status {status}; it is started again\n{process.output()}".rstrip()
        )
        if process.age > _SETTLED_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self._booting = loop.create_task(self._boot_again())

    async def _boot_again(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            try:
                fresh = await self._boot()
            except ForkserverError as error:
                self._problem = str(error)
                self._decide()
                self._warn(f"the forkserver cannot be started again: {error}")
            else:
                break
        self._booting = None
        self._take_over(fresh)


def make_forkserver(
    settings: ExecutorSettings,
    cleanup: ProcessCleanup,
    warn: Callable[[str], None],
    on_return: Callable[[], None],
    *,
    with_pool: bool = False,
) -> Forkserver:
    """A forkserver as these settings want it, not started yet."""
    made_of = ForkserverSettings(
        python_bin=settings.python_bin,
        module=settings.executor_module,
        preload=settings.preload,
        environment=environment(settings),
        open_files=settings.open_files,
        with_pool=with_pool,
    )
    return Forkserver(made_of, cleanup, warn, on_return)
