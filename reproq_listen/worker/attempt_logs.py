"""Files with the output of each attempt (`--logs-dir`): `task-<id>-attempt-<n>.log`, readable by their owner only.

A full disk, a slow disk or a lack of threads costs the file, never the outcome.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import msgspec

from reproq_listen.errors import SettingError
from reproq_listen.model import CapturedOutput, ClaimedTask, Outcome

_WRITE_LIMIT = 5.0  # seconds


class AttemptLogs:
    """Owns the folder."""

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

    async def write(self, task: ClaimedTask, outcome: Outcome) -> Outcome:
        """Write the file. Returns the outcome with its path, or with a warning that says why there is no file."""
        if outcome.stdout is None and outcome.stderr is None:
            return outcome  # no process was started
        path = self._folder / f"task-{task.result_id}-attempt-{task.attempts}.log"
        try:
            async with asyncio.timeout(_WRITE_LIMIT):
                await asyncio.to_thread(_write, path, outcome)
        except TimeoutError:
            problem = f"not within {_WRITE_LIMIT:g} s"
        except OSError as error:
            problem = str(error.strerror)
        except RuntimeError as error:
            problem = str(error)  # no thread can be started
        else:
            return msgspec.structs.replace(outcome, logs_uri=str(path))
        warning = f"the output could not be written to {path}: {problem}"
        return msgspec.structs.replace(outcome, warnings=(*outcome.warnings, warning))


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
