"""Starting one child process: its pipes, its session, its environment."""

import contextlib
import os
import resource
import subprocess
from collections.abc import Mapping, Sequence

from reproq_listen import allowlist
from reproq_listen.model import ExecutorSettings
from reproq_listen.protocol import ALLOW_ENV, MARK_ENV, RESULT_FD_ENV

_NEVER_INHERITED = frozenset({ALLOW_ENV, MARK_ENV, RESULT_FD_ENV})


class Child:
    """A process that leads a session and a group of its own, and the worker's ends of its pipes.

    Whoever takes a descriptor out of it closes it; the process must be reaped with `reap`.
    """

    def __init__(self, process: subprocess.Popen[bytes], ends: "_Ends") -> None:
        self.pid = process.pid
        self.stdin = ends.stdin
        self.stdout = ends.stdout
        self.stderr = ends.stderr
        self.result = ends.result
        self._process = process

    def reap(self) -> int:
        """Give the exit status, or minus the number of the signal. To be called when the process has ended."""
        return self._process.wait()


class _Ends:
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

    def close(self) -> None:
        """Close everything: the child could not be started."""
        self._undo.close()


def start(arguments: Sequence[str], environment: Mapping[str, str], *, private_result: bool) -> Child:
    """Start a child. With `private_result` it inherits a pipe whose number is in its environment.

    Raises OSError, with nothing left open, if it cannot be started.
    """
    ends = _Ends(private_result=private_result)
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
    return Child(process, ends)


def environment_for_children(settings: ExecutorSettings, ours: Mapping[str, str]) -> dict[str, str]:
    """What every child inherits: our environment without the server's secrets, and with the allow-list."""
    kept = {
        name: value
        for name, value in ours.items()
        if not name.startswith("METRICS_") and name not in settings.hidden_env and name not in _NEVER_INHERITED
    }
    kept[ALLOW_ENV] = allowlist.pack(settings.allowed_task_modules)
    return kept


def forbid_core_dumps() -> None:
    """For this process, which holds payloads and passwords too, and all that it starts from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
