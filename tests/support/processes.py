"""A process of ours that writes its log to standard error, and what it has logged so far."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.support.database import ROOT, wait_until


class LoggingProcess:
    """`python -m` with these arguments. Killed at the end of its `with` block if it still runs."""

    def __init__(self, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        command: Sequence[str] = [sys.executable, "-m", *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ
        )
        self.pid = self.process.pid
        self.events: list[dict[str, Any]] = []
        self.plain: list[str] = []
        self.reading = threading.Lock()
        """While it is held the log is not read, and its pipe fills up."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        if error is not None:
            sys.stdout.write("".join(f"{event}\n" for event in [*self.events, *self.plain]))

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The logged events of this name with these fields."""
        wanted = {"event": event, **fields}
        return [line for line in list(self.events) if all(line.get(key) == value for key, value in wanted.items())]

    def seen(self, event: str, **fields: object) -> int:
        """How often an event with these fields was logged."""
        return len(self.logged(event, **fields))

    def wait_for(self, event: str, *, times: int = 1, seconds: float = 30, **fields: object) -> None:
        wait_until(lambda: self.seen(event, **fields) >= times, what=f"{event} {fields} x {times}", seconds=seconds)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.reading:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.plain.append(line.decode(errors="replace"))
