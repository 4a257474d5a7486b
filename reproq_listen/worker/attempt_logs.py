"""Files with the output of each attempt (`--logs-dir`): `task-<id>-attempt-<n>.log`, readable by their owner only.

A full disk, a slow disk or a lack of threads costs the file, never the outcome. One daemon thread writes: a folder that
hangs (a network file system) holds neither the end of the program nor the output of later attempts.
"""

from __future__ import annotations

import asyncio
import os
import queue
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from reproq_listen.errors import SettingError
from reproq_listen.model import CapturedOutput, ClaimedTask, Outcome

_WRITE_LIMIT = 5.0  # seconds


class _Draft:
    """A file to write; without its outcome once that is not waited for."""

    def __init__(self, path: Path, outcome: Outcome) -> None:
        self.path = path
        self.outcome: Outcome | None = outcome
        self._loop = asyncio.get_running_loop()
        self.written: asyncio.Future[None] = self._loop.create_future()

    def settle(self, error: OSError | None) -> None:
        """Called by the thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: OSError | None) -> None:
        if self.written.done():
            return
        if error is None:
            self.written.set_result(None)
        else:
            self.written.set_exception(error)


class AttemptLogs:
    """Owns the folder, and the thread that writes to it."""

    def __init__(self, folder: str) -> None:
        """Create the folder, with mode 0700, if it is missing. Raises SettingError if it is not writable."""
        self._folder = Path(folder).absolute()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(f"--logs-dir {folder}: the folder cannot be created: {error.strerror}") from None
        try:
            tempfile.TemporaryFile(dir=self._folder).close()
        except OSError as error:
            raise SettingError(
                f"--logs-dir {folder}: no file can be created there: {error.strerror}; "
                "name another folder, or make this one writable"
            ) from None
        self._drafts: queue.SimpleQueue[_Draft] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._hangs = False

    async def write(self, task: ClaimedTask, outcome: Outcome) -> Outcome:
        """Write the file. Returns the outcome with its path, or with a warning that says why there is no file."""
        if outcome.stdout is None and outcome.stderr is None:
            return outcome  # no process was started
        path = self._folder / f"task-{task.result_id}-attempt-{task.attempts}.log"
        draft = _Draft(path, outcome)
        try:
            self._hand_over(draft)
            # Not a timeout that cancels: the future would keep our frame, and with it the output.
            if (await asyncio.wait({draft.written}, timeout=0 if self._hangs else _WRITE_LIMIT))[0]:
                draft.written.result()
                return msgspec.structs.replace(outcome, logs_uri=str(path))
            self._hangs = True
            problem = f"not within {_WRITE_LIMIT:g} s"
        except OSError as error:
            problem = str(error.strerror)
        except RuntimeError as error:
            problem = str(error)  # no thread can be started
        finally:
            draft.outcome = None
        warning = f"the output could not be written to {path}: {problem}"
        return msgspec.structs.replace(outcome, warnings=(*outcome.warnings, warning))

    def _hand_over(self, draft: _Draft) -> None:
        """Raises RuntimeError if there is no thread and none can be started."""
        if self._thread is None:
            thread = threading.Thread(target=self._write_all, name="attempt logs", daemon=True)
            thread.start()
            self._thread = thread
        self._drafts.put(draft)

    def _write_all(self) -> None:
        while True:
            draft = self._drafts.get()
            outcome = draft.outcome
            if outcome is None:
                continue
            error = None
            try:
                _write(draft.path, outcome)
            except OSError as problem:
                error = problem
            self._hangs = False
            draft.settle(error)
            del draft, outcome


def _write(path: Path, outcome: Outcome) -> None:
    """Write the whole file or none. Raises OSError."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"STDOUT:\n" + _text(outcome.stdout) + b"\nSTDERR:\n" + _text(outcome.stderr) + b"\n")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _text(output: CapturedOutput | None) -> bytes:
    if output is None:
        return b""
    missing = output.total - len(output.head) - len(output.tail)
    gap = b"\n... %d bytes left out ...\n" % missing if missing else b""
    return output.head + gap + output.tail
