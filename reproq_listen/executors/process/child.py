"""One child process: its pipes, its session, and a cold start of it."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence

from reproq_listen.executors.process.exits import Exit, wait_for
from reproq_listen.protocol.executor import RESULT_FD_ENV


class Child:
    """A process that leads a session and a group of its own, and the worker's ends of its pipes.

    Whoever takes a descriptor out of it closes it. The process must be reaped with `reap` when it has ended;
    `then` is told how, at once or a little later.
    """

    def __init__(self, pid: int, ends: "ChildPipes", reap: Callable[[Callable[[Exit], None]], None]) -> None:
        self.pid = pid
        self.stdin = ends.stdin
        self.stdout = ends.stdout
        self.stderr = ends.stderr
        self.result = ends.result
        self.reap = reap


class ChildPipes:
    """Makes the pipes. The child's ends live in `theirs`, and are closed as soon as it has them."""

    def __init__(self, *, private_result: bool) -> None:
        with contextlib.ExitStack() as undo:
            self._undo = undo
            self.theirs = contextlib.ExitStack()
            undo.push(self.theirs)
            self.child_stdin, self.stdin = self._pipe(child_reads=True)
            self.child_stdout, self.stdout = self._pipe(child_reads=False)
            self.child_stderr, self.stderr = self._pipe(child_reads=False)
            self.child_result = self.result = -1
            if private_result:
                self.child_result, self.result = self._pipe(child_reads=False)
            self._undo = undo.pop_all()

    def _pipe(self, *, child_reads: bool) -> tuple[int, int]:
        read, write = os.pipe()
        child, ours = (read, write) if child_reads else (write, read)
        self.theirs.callback(os.close, child)
        self._undo.callback(os.close, ours)
        return child, ours

    def for_child(self) -> tuple[int, ...]:
        """What the child gets as 0, 1, 2, and the result pipe if it has one."""
        standard = (self.child_stdin, self.child_stdout, self.child_stderr)
        return standard if self.child_result < 0 else (*standard, self.child_result)

    def close(self) -> None:
        """Close everything: the child could not be started."""
        self._undo.close()


def start(arguments: Sequence[str], environment: Mapping[str, str], *, private_result: bool) -> Child:
    """Start a child. With `private_result` it inherits a pipe whose number is in its environment.

    Raises OSError, with nothing left open, if it cannot be started.
    """
    ends = ChildPipes(private_result=private_result)
    extra = {RESULT_FD_ENV: str(ends.child_result)} if private_result else {}
    try:
        process = subprocess.Popen(
            arguments,
            stdin=ends.child_stdin,
            stdout=ends.child_stdout,
            stderr=ends.child_stderr,
            pass_fds=(ends.child_result,) if private_result else (),
            env={**environment, **extra},
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:
        ends.close()
        raise
    ends.theirs.close()

    def reap(then: Callable[[Exit], None]) -> None:
        end = wait_for(process.pid)
        process.returncode = end.status or 0  # or it would be waited for again
        then(end)

    return Child(process.pid, ends, reap)
