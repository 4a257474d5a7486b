"""The worker's side of the guard (guard_script.py): one guard per worker, at the other end of a pipe."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from reproq_listen.executors.process.exits import ExitWatch
from reproq_listen.protocol.executor import TAG_ENV

_PROGRAM = Path(__file__).with_name("guard_script.py")
_RESTART_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 15.0


class Guard:
    """Kills the registered process groups when this process dies. If the guard dies first, it is restarted.

    Owns the guard process and the write end of its pipe, which no other process may inherit.
    """

    def __init__(self, tag: str, control_group: Path | None, warn: Callable[[str], None]) -> None:
        """`control_group`: the folder of the group that the guard empties and removes at the end."""
        self._arguments = [tag, *([str(control_group)] if control_group is not None else [])]
        self._warn = warn
        self._groups: set[int] = set()
        self._last_line = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._has_ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def groups(self) -> frozenset[int]:
        """The registered groups."""
        return frozenset(self._groups)

    def ensure(self) -> None:
        """Start the guard unless it runs. Raises OSError if it cannot be started."""
        if self._process is not None:
            return
        environment = {name: value for name, value in os.environ.items() if name != TAG_ENV}
        self._process = subprocess.Popen(
            [sys.executable or "python3", "-I", "-S", str(_PROGRAM), *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            start_new_session=True,
        )
        os.set_blocking(self._pipe(), False)
        self._has_ended.clear()
        ExitWatch(asyncio.get_running_loop(), self._process.pid, self._ended)
        for group in self._groups:
            self._send(f"+{group}\n")
        self._send(self._last_line)

    def run_at_the_end(self, module: str, data: bytes) -> None:
        """If this process dies before `close`, run this module of ours with this standard input."""
        self._last_line = f"!{module} {data.hex()}\n"
        self._send(self._last_line)

    def add(self, group: int) -> None:
        """From now on this group dies with the worker."""
        self._groups.add(group)
        self._send(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Call before the group's leader is reaped: afterwards another process may get its number."""
        self._groups.discard(group)
        self._send(f"-{group}\n")

    def _pipe(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def _send(self, line: str) -> None:
        if self._process is None or self._is_closing:
            return  # the next guard is sent all groups
        try:
            os.write(self._pipe(), line.encode())
        except BrokenPipeError:
            pass  # it is dead: _ended follows
        except BlockingIOError:
            self._warn("the guard process does not read its pipe; it is replaced")
            self._process.kill()

    def _ended(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        status = process.wait()
        self._has_ended.set()
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
        """Close the pipe, and wait until the guard has killed what is left and ended."""
        self._last_line = "!\n"
        self._send(self._last_line)
        self._is_closing = True
        if self._restart is not None:
            self._restart.cancel()
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._has_ended.wait()
        except TimeoutError:
            self._warn("the guard process does not end; it is killed")
            process.kill()
            await self._has_ended.wait()
