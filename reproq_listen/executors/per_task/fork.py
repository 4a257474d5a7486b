"""The executor mode `fork`: a forkserver, and a fresh copy of it for every attempt.

The child follows the same contract as one that starts cold (arguments, stdin, stdout), so any executor module works.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import ForkJob, Forkserver, make_forkserver
from reproq_listen.executors.per_task.executor import OnMetadata, PerTaskExecutor
from reproq_listen.executors.process.child import Child, ChildPipes
from reproq_listen.model import ExecutorSettings


class ForkedChildren:
    """Forks children from a forkserver, which it owns."""

    def __init__(self, forkserver: Forkserver) -> None:
        self._forkserver = forkserver

    @property
    def pids(self) -> set[int]:
        """The forkserver's."""
        return {self._forkserver.pid} if self._forkserver.pid is not None else set()

    @property
    def is_ready(self) -> bool:
        """Whether there is a forkserver."""
        return self._forkserver.is_there

    async def open(self) -> None:
        """Boot the forkserver. Raises ForkserverError."""
        await self._forkserver.start()

    async def start_child(self, arguments: Sequence[str], tag: Mapping[str, str], *, private_result: bool) -> Child:
        pipes = ChildPipes(private_result=private_result)
        try:
            job = ForkJob(entry="task", fds=pipes.for_child(), arguments=tuple(arguments), environment=tag)
            forked = await self._forkserver.fork(job)
        except BaseException:
            pipes.close()
            raise
        pipes.started()
        return Child(forked.pid, pipes, forked.reap)

    async def reload(self) -> None:
        await self._forkserver.reload()

    async def close(self) -> None:
        await self._forkserver.close()


def fork_executor(
    settings: ExecutorSettings,
    warn: Callable[[str], None],
    on_metadata: OnMetadata = lambda task, body: None,
    on_ready: Callable[[], None] = lambda: None,
) -> PerTaskExecutor:
    """Make an executor. `warn` is called with what an operator should know and no task is to blame for.

    `on_ready` is called when children can be forked again after they could not.
    """
    cleanup = ProcessCleanup(warn)
    forkserver = make_forkserver(settings, cleanup, warn, on_ready)
    return PerTaskExecutor(settings, ForkedChildren(forkserver), cleanup, on_metadata)


def can_fork() -> bool:
    """Whether this platform has what a forkserver needs: Linux, with pidfds."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
