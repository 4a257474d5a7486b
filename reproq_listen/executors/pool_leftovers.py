"""What a task may leave behind in its process, and how the next task is kept from it.

This keeps honest tasks from stumbling over each other; it is no wall. A task that wants one belongs in mode `fork`.
"""

import importlib
import os
import signal
import threading

from reproq_listen.executors.pool_django import DjangoConnections
from reproq_listen.executors.pool_prints import Prints

_getsignal = importlib.import_module("_signal").getsignal
"""As signal.getsignal, without the enumeration around it, which costs ten times as much."""

_WATCHED = (
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


class Leftovers:
    """Remembers how the process was before the first task."""

    def __init__(self, prints: Prints) -> None:
        self._prints = prints
        self._django = DjangoConnections()
        self._threads = threading.active_count()
        self._folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._environment = dict(_environment())
        self._handlers = [(number, _getsignal(number)) for number in _WATCHED]

    def look_again(self) -> str | None:
        """What is not worth a look after each task, but before each crowd of them. As `tidy_up`."""
        return self._tidy_up_connections()

    def tidy_up(self) -> str | None:
        """Undo what can be undone: folder, umask, signal handlers, alarm, environment, standard streams.

        Gives the reason, in words, if something is left that cannot be undone: then no other task may run here.
        """
        os.fchdir(self._folder)
        os.umask(0o077)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers:
            if _getsignal(number) is not handler:
                signal.signal(number, handler)
        if _environment() != self._environment:
            self._restore_environment()
        self._prints.begin()
        if threading.active_count() != self._threads:
            return "a task left a thread running"
        if _has_children():
            return "a task left a process running"
        return self._tidy_up_connections()

    def _tidy_up_connections(self) -> str | None:
        try:
            self._django.tidy_up()
        except Exception as error:  # noqa: BLE001 - a driver's own code
            return f"a database connection cannot be closed: {error!r}"
        return None

    def _restore_environment(self) -> None:
        for name in _environment().keys() - self._environment.keys():
            os.unsetenv(name)
        _environment().clear()
        os.environb.update(self._environment)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _environment() -> dict[bytes, bytes]:
    """The environment as bytes. The public view of it costs twenty times as much, after each task."""
    return os.environ._data  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001
