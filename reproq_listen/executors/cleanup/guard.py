"""The worker's side of the guard (guard_script.py): one guard a worker, on the other end of a lifeline pipe."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from reproq_listen.executors.process.exits import ExitWatch
from reproq_listen.protocol.executor import MARK_ENV

_PROGRAM = Path(__file__).with_name("guard_script.py")
_RESTART_PAUSE_SECONDS = 1.0
_FAREWELL_SECONDS = 15.0


class Guard:
    """Kills the groups it was told of when this process dies. Restarted, and told again, if it dies first.

    Owns the guard process and the write end of its pipe, which no other process may inherit.
    """

    def __init__(self, mark: str, warn: Callable[[str], None]) -> None:
        self._mark = mark
        self._warn = warn
        self.control_group: Path | None = None
        """The folder of the control group that is emptied and removed at the end. To be set before `ensure`."""
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def ensure(self) -> None:
        """Start the guard unless it runs. Raises OSError if it cannot be started."""
        if self._process is not None:
            return
        environment = {name: value for name, value in os.environ.items() if name != MARK_ENV}
        self._process = subprocess.Popen(
            [sys.executable or "python3", "-I", "-S", str(_PROGRAM), self._mark, *self._arguments()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        os.set_blocking(self._pipe(), False)
        self._ended.clear()
        ExitWatch(asyncio.get_running_loop(), self._process.pid, self._died)
        for group in self._groups:
            self._tell(f"+{group}\n")

    def _arguments(self) -> list[str]:
        return [str(self.control_group)] if self.control_group is not None else []

    def add(self, group: int) -> None:
        """From now on this group dies with the worker."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Call before the group's leader is reaped: afterwards its number may be given to a stranger."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def _pipe(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def _tell(self, line: str) -> None:
        if self._process is None or self._is_closing:
            return  # a successor is told of all groups
        try:
            os.write(self._pipe(), line.encode())
        except BrokenPipeError:
            pass  # dead: _died follows
        except BlockingIOError:
            self._warn("the guard process does not listen any more; it is replaced")
            self._process.kill()

    def _died(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        status = process.wait()
        self._ended.set()
        if not self._is_closing:
            self._warn(f"the guard process ended with status {status}; it is started again")
            self._start_again()

    def _start_again(self) -> None:
        try:
            self.ensure()
        except OSError as error:
            self._warn(f"the guard process cannot be started: {error}")
            loop = asyncio.get_running_loop()
            self._restart = loop.call_later(_RESTART_PAUSE_SECONDS, self._start_again)

    async def close(self) -> None:
        """Close the lifeline and wait until the guard has killed what is left and ended."""
        self._is_closing = True
        if self._restart is not None:
            self._restart.cancel()
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            self._warn("the guard process does not end; it is killed")
            process.kill()
            await self._ended.wait()
