"""Starting one forkserver process: its program, its socket, its output, and what it imports."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.client import ForkserverClient
from reproq_listen.executors.process.limits import limit_open_files
from reproq_listen.executors.process.pipes import OutputBuffer, PipeReader
from reproq_listen.model import ForkserverTimings
from reproq_listen.protocol.envelope import clean_end
from reproq_listen.protocol.executor import OUR_MODULE, TAG_ENV

_PROGRAM = Path(__file__).with_name("server_script.py")
_SHOWN_BYTES = 4 << 10
_POOL_SERVER = "reproq_listen.child.pool_server"


class ForkserverSettings(Struct, frozen=True):
    """What a forkserver process is started with."""

    python_bin: str
    module: str
    """The executor module."""
    preload: tuple[str, ...]
    environment: Mapping[str, str]
    """Of the forkserver and all its children, without their tags."""
    timings: ForkserverTimings
    open_files: int
    """Soft limit of open files of the forkserver and its children; 0: as this process."""
    memory_bytes: int
    """Limit of the private memory of each child; 0: no limit."""
    with_pool: bool
    """Whether it imports the pool's server too, and so can fork children for it."""


class ForkserverProcess:
    """One forkserver process with its client and its output."""

    def __init__(
        self,
        settings: ForkserverSettings,
        cleanup: ProcessCleanup,
        on_exit: Callable[["ForkserverProcess", int], None],
    ) -> None:
        """`on_exit` is called with the exit status of a process that was up. Raises OSError, with nothing left behind,
        if it cannot be started."""
        self._loop = asyncio.get_running_loop()
        self._cleanup = cleanup
        self._on_exit = on_exit
        self._number = cleanup.next_number()
        self._began = self._loop.time()
        self._output = OutputBuffer(_SHOWN_BYTES, _SHOWN_BYTES)
        self.is_up = False
        self.status: int | None = None
        """Its exit status, when it has ended."""
        self.has_ended = asyncio.Event()
        process, control = _start(settings, cleanup.environment(self._number))
        assert process.stdout is not None
        self._reader = PipeReader(self._loop, os.dup(process.stdout.fileno()), self._output.feed)
        process.stdout.close()
        cleanup.enclose(process.pid)
        limit_open_files(process.pid, settings.open_files)
        cleanup.began(self._number, process.pid, has_work=False)
        self.client = ForkserverClient(
            process, control, settings.timings.answer_seconds, self._ended, cleanup.before_reaping
        )
        self.client.boot(
            {
                "module": settings.module,
                "is_ours": settings.module == OUR_MODULE,
                "preload": settings.preload,
                "pool": _POOL_SERVER if settings.with_pool else None,
                "tag_env": TAG_ENV,
                "memory_bytes": settings.memory_bytes,
            }
        )

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return self._loop.time() - self._began

    def output(self) -> str:
        """The end of what it wrote."""
        return clean_end(self._output.last(_SHOWN_BYTES).decode(errors="replace").strip(), _SHOWN_BYTES)

    def _ended(self, status: int) -> None:
        self._reader.finish()
        self._cleanup.ended(self._number)
        self.status = status
        self.has_ended.set()
        if self.is_up:
            self._on_exit(self, status)


def _start(settings: ForkserverSettings, tag: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments: Sequence[str] = [settings.python_bin or sys.executable, str(_PROGRAM), str(theirs.fileno())]
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(),),
            env={**settings.environment, **tag},
            bufsize=0,
            start_new_session=True,
            umask=0o077,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours
