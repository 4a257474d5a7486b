"""Payloads as private files, for the payload mode `file`: 0600 in a directory 0700, removed on every road.

Each executor has a directory of its own and holds a lock on it; what a killed worker left behind is unlocked,
and the next executor of the same user sweeps it away.
"""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

_SETTLED_SECONDS = 60.0
"""A younger directory may be one whose owner has not taken its lock yet."""


class PayloadFiles:
    """Owns one directory. Raises OSError from `__init__` if the place for it is not ours alone."""

    def __init__(self, parent: Path | None = None) -> None:
        parent = parent or Path(tempfile.gettempdir()) / f"reproq-payloads-{os.getuid()}"
        parent.mkdir(mode=0o700, exist_ok=True)
        _check_private(parent)
        _sweep(parent)
        self.directory = Path(tempfile.mkdtemp(prefix="worker-", dir=parent))
        self._lock = _try_lock(self.directory)
        if self._lock is None:
            raise OSError(f"{self.directory} is locked by somebody else")

    def write(self, name: str, payload: bytes) -> Path:
        """Give the path of a new file with this content. Raises OSError, and then there is no such file."""
        path = self.directory / name
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
        is_settled = time.time() - status.st_mtime > _SETTLED_SECONDS
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or not is_settled:
            continue
        lock = _try_lock(directory)
        if lock is not None:
            shutil.rmtree(directory, ignore_errors=True)  # another worker may sweep it just now
            os.close(lock)


def _try_lock(directory: Path) -> int | None:
    """Lock a directory by its own descriptor; it is unlocked when its owner closes it or dies."""
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
