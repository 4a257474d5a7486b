"""Payloads as private files, for the payload mode `file`: mode 0600 in a directory of mode 0700.

A file is removed when its attempt ends, in whatever way. Each executor locks a directory of its own. The directory of
a killed worker is unlocked: the next executor of the same user removes it.
"""

import fcntl
import itertools
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

_MIN_AGE_SECONDS = 60.0
"""The owner of a younger directory may not have locked it yet."""


class PayloadFiles:
    """Owns one directory."""

    def __init__(self, parent: Path | None = None) -> None:
        """Raises OSError if other users can reach `parent`."""
        parent = parent or Path(tempfile.gettempdir()) / f"reproq-payloads-{os.getuid()}"
        parent.mkdir(mode=0o700, exist_ok=True)
        _check_private(parent)
        _sweep(parent)
        self._numbers = itertools.count(1)
        self.directory = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
        self._lock = _try_lock(self.directory)
        if self._lock is None:
            raise OSError(f"{self.directory} is locked by another process")

    def write(self, payload: bytes) -> Path:
        """Give the path of a new file with this content. Raises OSError, and then there is no such file."""
        path = self.directory / f"payload-{next(self._numbers):010}.json"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as file:
            try:
                file.write(payload)
                file.flush()
            except OSError:
                path.unlink()
                raise
        return path

    def close(self) -> None:
        """Remove the directory and all in it."""
        shutil.rmtree(self.directory)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _check_private(directory: Path) -> None:
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{directory} must be a directory of this user with mode 0700; remove it")


def _sweep(parent: Path) -> None:
    """Remove the directories of executors that are gone."""
    for directory in parent.iterdir():
        status = directory.lstat()
        is_old = time.time() - status.st_mtime > _MIN_AGE_SECONDS
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or not is_old:
            continue
        lock = _try_lock(directory)
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)  # another worker may be removing it
            os.close(lock)


def _try_lock(directory: Path) -> int | None:
    """Lock a directory until its descriptor is closed. None if it is gone or another process has locked it."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
