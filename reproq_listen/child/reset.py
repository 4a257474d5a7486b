"""What a task may leave behind in a pool child, and how it is undone before the next task.

This keeps well-meaning tasks from disturbing each other. It is no security boundary: use mode `fork` for that.
"""

import ctypes
import fcntl
import importlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterable
from typing import Any

from reproq_listen.child.django_connections import DjangoConnections
from reproq_listen.child.stdio import StdioCapture

_signal = importlib.import_module("_signal")
"""As `signal`, without its enumerations, which cost ten times as much."""

_USUAL = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGCHLD,
    signal.SIGPIPE,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_HIGH_DESCRIPTOR = 512
_PR_SET_CHILD_SUBREAPER = 36

Handlers = list[tuple[int, Any]]


class ProcessReset:
    """Remembers the state of the process before the first task."""

    def __init__(self, stdio: StdioCapture) -> None:
        self._stdio = stdio
        self._django = DjangoConnections()
        self._threads = threading.active_count()
        self._folder = move_high(os.open(".", os.O_RDONLY | os.O_DIRECTORY))
        self._input, self._output, self._errors = (move_high(os.dup(fd)) for fd in (0, 1, 2))
        self._stdin = sys.stdin
        self._environment = dict(_environment())
        self._usual_handlers = _handlers_of(_USUAL)
        self._handlers = _handlers_of(signal.valid_signals())
        self._mask = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
        if sys.platform == "linux":  # so that _has_children also finds processes whose parent has ended
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def before_batch(self) -> str | None:
        """Undo what tasks change rarely; `after_task` undoes the rest. Gives a reason as that does."""
        _signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for timer in (signal.ITIMER_PROF, signal.ITIMER_VIRTUAL):
            _signal.setitimer(timer, 0)
        _restore(self._handlers)
        os.dup2(self._input, 0)
        if self._stdin is not None and self._stdin.closed:
            self._stdin = open(0, closefd=False)  # noqa: SIM115 - for the tasks
        sys.stdin = self._stdin
        return self._close_connections()

    def after_task(self) -> str | None:
        """Undo changes of folder, umask, signal handlers, alarm, environment, standard streams and transactions.

        Gives a reason if something cannot be undone: then no other task may run here.
        """
        try:
            os.fchdir(self._folder)
            os.dup2(self._output, 1)
            os.dup2(self._errors, 2)
        except OSError:
            return "a task closed descriptors that were not its own"
        os.umask(0o077)
        _signal.setitimer(signal.ITIMER_REAL, 0)
        _restore(self._usual_handlers)
        if _environment() != self._environment:
            self._restore_environment()
        if self._stdio.are_closed():
            return "a task closed a standard stream"
        self._stdio.before_task()
        if threading.active_count() != self._threads:
            return "a task left a thread running"
        if _has_children():
            return "a task left a process running"
        return self._close_connections()

    def _close_connections(self) -> str | None:
        try:
            self._django.after_task()
        except Exception as error:  # noqa: BLE001 - code of a database driver
            return f"a database connection cannot be closed: {error!r}"
        return None

    def _restore_environment(self) -> None:
        for name in _environment().keys() - self._environment.keys():
            os.unsetenv(name)
        _environment().clear()
        os.environb.update(self._environment)


def move_high(fd: int) -> int:
    """Give a descriptor a high number.

    If a task closes descriptors that are not its own and then opens files, the files must not get our numbers.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(_HIGH_DESCRIPTOR, limit // 2))
    os.close(fd)
    return moved


def _handlers_of(signals: Iterable[int]) -> Handlers:
    """Give the handlers that Python knows."""
    return [(number, handler) for number in signals if (handler := _signal.getsignal(number)) is not None]


def _restore(handlers: Handlers) -> None:
    for number, handler in handlers:
        if _signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _environment() -> dict[bytes, bytes]:
    """The environment as bytes. The public view of it costs twenty times as much, after each task."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001
