"""The executor mode `fork`: a warm template, and a pristine child of it for every attempt.

The child speaks the same contract as a cold start (arguments, stdin, stdout), so any executor module will do.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import ForkJob, Forkserver, make_forkserver
from reproq_listen.executors.per_task.executor import Noted, PerTaskExecutor
from reproq_listen.executors.process.child import Child, ChildPipes
from reproq_listen.model import ExecutorSettings


class ForkedChildren:
    """Children forked from a template, which it owns."""

    def __init__(self, forkserver: Forkserver) -> None:
        self._forkserver = forkserver

    @property
    def pids(self) -> set[int]:
        """The template's."""
        return {self._forkserver.pid} if self._forkserver.pid is not None else set()

    @property
    def is_ready(self) -> bool:
        """Whether there is a template."""
        return self._forkserver.is_there

    async def open(self) -> None:
        """Boot the template. Raises ForkserverError."""
        await self._forkserver.start()

    async def start_child(self, arguments: Sequence[str], mark: Mapping[str, str], *, private_result: bool) -> Child:
        ends = ChildPipes(private_result=private_result)
        try:
            job = ForkJob(entry="task", fds=ends.for_child(), arguments=tuple(arguments), environment=mark)
            forked = await self._forkserver.fork(job)
        except BaseException:
            ends.close()
            raise
        ends.theirs.close()
        return Child(forked.pid, ends, forked.reap)

    async def reload(self) -> None:
        await self._forkserver.reload()

    async def close(self) -> None:
        await self._forkserver.close()


def fork_executor(
    settings: ExecutorSettings,
    warn: Callable[[str], None],
    noted: Noted = lambda task, note: None,
    on_ready: Callable[[], None] = lambda: None,
) -> PerTaskExecutor:
    """`warn` is told what an operator should know and no task is to blame for. `on_ready` is called when children can
    be forked again after they could not."""
    cleanup = ProcessCleanup(warn)
    forkserver = make_forkserver(settings, cleanup, warn, lambda: executor.on_room())
    executor = PerTaskExecutor(settings, ForkedChildren(forkserver), cleanup, noted, on_ready)
    return executor


def can_fork() -> bool:
    """Whether this platform has what templates need: Linux, with pidfds."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True
