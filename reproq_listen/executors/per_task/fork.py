"""The executor mode `fork`: a forkserver, and a fresh copy of it for every attempt.

The copies are forked ahead, so a task does not wait for its own. Each waits for the arguments and the payload of one
task, runs it and ends. It then follows the same contract as a child that starts cold (arguments, stdin, stdout), so any
executor module works.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.client import ForkserverGoneError
from reproq_listen.executors.forkserver.forkserver import Forked, ForkJob, NoForkserverError, make_forkserver
from reproq_listen.executors.forkserver.server_script import ARGUMENTS_HEADER
from reproq_listen.executors.per_task.executor import OnMetadata, OnRequest, PerTaskExecutor, no_answer
from reproq_listen.executors.process.child import Child, ChildPipes
from reproq_listen.executors.process.exits import signal_group
from reproq_listen.executors.start_backoff import OnPause, StartBackoff
from reproq_listen.model import ExecutorSettings
from reproq_listen.protocol.executor import OUR_MODULE

_MAX_TRIES = 3
_IDLE_SECONDS = 0.05
"""If no task has come for this long, the next child prepares itself while it waits. On a busy worker that would only
be more work."""


class ForkedChildren:
    """Owns the forkserver, and children until they have a task.

    Keeps some children ready. They have no task, no payload and no lease; they wait in a read of their standard input.
    """

    def __init__(
        self,
        settings: ExecutorSettings,
        cleanup: ProcessCleanup,
        warn: Callable[[str], None],
        on_pause: OnPause,
        on_ready: Callable[[], None],
    ) -> None:
        """`on_ready` is called when children can be started again after they could not."""
        self._settings = settings
        self._cleanup = cleanup
        self._on_ready = on_ready
        self.backoff = StartBackoff(on_pause, self._pause_is_over)
        self._forkserver = make_forkserver(settings, cleanup, warn, on_pause, self._forkserver_returned)
        self._ready: deque[tuple[Child, Forked]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        """Tasks that wait for a child."""
        self._forks: set[asyncio.Task[None]] = set()
        self._discarded: set[Child] = set()
        """Killed without a task, and not reaped yet."""
        self._all_reaped = asyncio.Event()
        self._all_reaped.set()
        self._is_closing = False
        self._taken_at = float("-inf")
        """When a task last got its child."""
        self._is_idle = True
        """Whether that was long after the task before."""

    @property
    def pids(self) -> set[int]:
        """The forkserver's."""
        return {self._forkserver.pid} if self._forkserver.pid is not None else set()

    @property
    def ready_pids(self) -> set[int]:
        return {child.pid for child, _ in self._ready}

    @property
    def is_ready(self) -> bool:
        return self._forkserver.is_there

    async def open(self) -> None:
        """Boot the forkserver. Raises ForkserverError."""
        await self._forkserver.start()
        self._refill()

    def take(self, arguments: Sequence[str]) -> Child | None:
        """Give the child that has been ready for the longest time."""
        self._discard_old()
        if not self._ready:
            return None
        child, _ = self._ready.popleft()
        now = asyncio.get_running_loop().time()
        self._is_idle, self._taken_at = now - self._taken_at > _IDLE_SECONDS, now
        self._refill()
        self._cleanup.given_work(child.number)
        body = "\0".join(arguments).encode()
        child.preamble = ARGUMENTS_HEADER.pack(len(body)) + body
        return child

    async def wait_for_one(self, arguments: Sequence[str]) -> Child:
        for _ in range(_MAX_TRIES):
            await self._next_ready()
            child = self.take(arguments)
            if child is not None:
                return child
        raise NoForkserverError("children die before they can be given a task")

    async def _next_ready(self) -> None:
        """Wait until a child is ready. Raises OSError if none can be forked."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._refill()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self._wake_waiter()  # its child is for the next one
            raise

    def _wake_waiter(self, error: OSError | None = None) -> bool:
        """Whether a task has waited."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if waiter.done():
                continue  # it was cancelled
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)
            return True
        return False

    async def reload(self) -> None:
        await self._forkserver.reload()
        self._discard_old()
        self._refill()

    def _forkserver_returned(self) -> None:
        self._discard_old()
        self._refill()
        self._report_ready()

    def _report_ready(self) -> None:
        if self._forkserver.is_there and not self.backoff.is_pausing:
            self._on_ready()

    def _refill(self) -> None:
        """Fork a child for each task that waits, and those that are to be kept ready."""
        if self._is_closing:
            return
        may_fork_ahead = self._forkserver.is_there and not self.backoff.is_pausing
        wanted = len(self._waiters) + (self._settings.children_ahead if may_fork_ahead else 0)
        for _ in range(wanted - len(self._ready) - len(self._forks)):
            fork = asyncio.get_running_loop().create_task(self._fork_one())
            self._forks.add(fork)
            fork.add_done_callback(self._forked)

    def _forked(self, fork: asyncio.Task[None]) -> None:
        self._forks.discard(fork)
        if not fork.cancelled():
            fork.result()
            self._refill()

    async def _fork_one(self) -> None:
        try:
            child, forked = await self._fork()
        except OSError as error:
            if not self._wake_waiter(error) and self._forkserver.is_there:
                self._failed(f"no child can be forked ahead: {error}")
            return
        child.on_exit(lambda: self._died_ready(child))
        if self._forkserver.has_forked(forked):
            self._ready.append((child, forked))
            self._wake_waiter()
        else:
            self._discard(child)

    async def _fork(self) -> tuple[Child, Forked]:
        """Raises OSError. A forkserver that dies meanwhile is no error."""
        for _ in range(_MAX_TRIES):
            number = self._cleanup.next_number()
            pipes = ChildPipes(private_result=self._settings.executor_module == OUR_MODULE)
            try:
                entry: Literal["task", "idle task"] = "idle task" if self._is_idle else "task"
                job = ForkJob(entry=entry, fds=pipes.for_child(), tag=self._cleanup.tag(number))
                forked = await self._forkserver.fork(job)
            except ForkserverGoneError as error:
                pipes.close()
                gone = error
            except BaseException:
                pipes.close()
                raise
            else:
                pipes.started(keep_stdin=True)
                # The guard must know the child before the child is fed.
                self._cleanup.began(number, forked.pid, has_work=False)
                return Child(number, forked.pid, pipes, forked.reap), forked
        raise gone

    def _discard_old(self) -> None:
        """Discard ready children that have not been forked from the present forkserver: their code may be old."""
        while self._ready and not self._forkserver.has_forked(self._ready[0][1]):
            self._discard(self._ready.popleft()[0])

    def _discard(self, child: Child) -> None:
        self._discarded.add(child)
        self._all_reaped.clear()
        signal_group(child.pid, signal.SIGKILL)

    def _died_ready(self, child: Child) -> None:
        """A child without a task has ended."""
        self._ready = deque(each for each in self._ready if each[0] is not child)
        is_failure = child not in self._discarded
        child.close_pipes()
        self._discarded.add(child)
        self._all_reaped.clear()
        self._cleanup.before_reaping(child.pid)
        child.reap(lambda _: self._reaped(child))
        if is_failure:
            self._failed("a process died before it had a task")

    def _reaped(self, child: Child) -> None:
        self._cleanup.ended(child.number)
        self._discarded.discard(child)
        if not self._discarded:
            self._all_reaped.set()

    def replace(self, child: Child) -> None:
        """Its successor was forked when it was taken."""
        self._refill()

    def _failed(self, why: str) -> None:
        """A child has failed without a task: replace it, now or after a pause."""
        if not self._is_closing and not self.backoff.failed(why):
            self._refill()

    def _pause_is_over(self) -> None:
        self._refill()
        self._report_ready()

    async def close(self) -> None:
        self._is_closing = True
        for fork in self._forks:
            fork.cancel()
        await asyncio.gather(*self._forks, return_exceptions=True)
        while self._ready:
            self._discard(self._ready.popleft()[0])
        await self._all_reaped.wait()
        await self._forkserver.close()


def fork_executor(
    settings: ExecutorSettings,
    warn: Callable[[str], None],
    on_metadata: OnMetadata = lambda task, body: None,
    on_pause: OnPause = lambda why, seconds: None,
    on_ready: Callable[[], None] = lambda: None,
    on_request: OnRequest = no_answer,
) -> PerTaskExecutor:
    """Make an executor. `warn` is called with what an operator should know and no task is to blame for.

    `on_pause` is called when no children can be started, `on_ready` when they can be again.
    """
    cleanup = ProcessCleanup(warn)
    children = ForkedChildren(settings, cleanup, warn, on_pause, on_ready)
    return PerTaskExecutor(settings, children, cleanup, children.backoff, on_metadata, on_request)


def can_fork() -> bool:
    """Whether this platform has what a forkserver needs: Linux, with pidfds."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
