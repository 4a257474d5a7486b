"""One child process: its pipes, its session, and a cold start of it."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.process.exits import Exit, reap
from reproq_listen.protocol.executor import RESULT_FD_ENV


class Child:
    """A process that leads a session and a group of its own, and the worker's ends of its pipes.

    The user of a descriptor closes it. When the process has ended it must be reaped with `reap`, which hands how it
    ended to its argument, at once or a little later.
    """

    def __init__(self, pid: int, pipes: "ChildPipes", reap: Callable[[Callable[[Exit], None]], None]) -> None:
        self.pid = pid
        self.stdin = pipes.stdin
        self.stdout = pipes.stdout
        self.stderr = pipes.stderr
        self.result = pipes.result
        self.reap = reap


class ChildPipes:
    """The pipes of a child that is about to be started: the worker's ends and the child's."""

    def __init__(self, *, private_result: bool) -> None:
        """Raises OSError, with nothing left open."""
        with contextlib.ExitStack() as undo:
            self._all = undo
            self._childs = undo.enter_context(contextlib.ExitStack())
            self.child_stdin, self.stdin = self._pipe(child_reads=True)
            self.child_stdout, self.stdout = self._pipe(child_reads=False)
            self.child_stderr, self.stderr = self._pipe(child_reads=False)
            self.child_result = self.result = -1
            if private_result:
                self.child_result, self.result = self._pipe(child_reads=False)
            self._all = undo.pop_all()

    def _pipe(self, *, child_reads: bool) -> tuple[int, int]:
        read, write = os.pipe()
        childs, ours = (read, write) if child_reads else (write, read)
        self._childs.callback(os.close, childs)
        self._all.callback(os.close, ours)
        return childs, ours

    def for_child(self) -> tuple[int, ...]:
        """Give the child's ends of 0, 1 and 2, and of the result pipe if there is one."""
        standard = (self.child_stdin, self.child_stdout, self.child_stderr)
        return standard if self.child_result < 0 else (*standard, self.child_result)

    def started(self) -> None:
        """Close the child's ends: the child has its own copies."""
        self._childs.close()

    def close(self) -> None:
        """Close everything: the child could not be started."""
        self._all.close()


def start(arguments: Sequence[str], environment: Mapping[str, str], *, private_result: bool) -> Child:
    """Start a child. With `private_result` it inherits a pipe whose number is in its environment.

    Raises OSError, with nothing left open, if it cannot be started.
    """
    pipes = ChildPipes(private_result=private_result)
    extra = {RESULT_FD_ENV: str(pipes.child_result)} if private_result else {}
    try:
        process = subprocess.Popen(
            arguments,
            stdin=pipes.child_stdin,
            stdout=pipes.child_stdout,
            stderr=pipes.child_stderr,
            pass_fds=(pipes.child_result,) if private_result else (),
            env={**environment, **extra},
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:
        pipes.close()
        raise
    pipes.started()

    def reap_it(on_exit: Callable[[Exit], None]) -> None:
        exit_ = reap(process.pid)
        process.returncode = exit_.status or 0  # or Popen would wait for it again
        on_exit(exit_)

    return Child(process.pid, pipes, reap_it)
