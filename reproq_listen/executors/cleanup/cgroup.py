"""A control group (cgroup version 2) around everything that tasks start.

A process cannot leave it by making a session, by another environment or by losing its parent, and the kernel kills all
its processes at once. It is made below this process's own group, which must be writable: as root, or where systemd has
delegated it (`Delegate=yes`).
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

_PREFIX = "reproq-"
_MIN_AGE_SECONDS = 60.0
"""A younger group without a process may belong to another container, whose pids are not in our /proc."""


class ControlGroup:
    """One group, and its folder until the guard removes it. This process itself stays outside."""

    def __init__(
        self, name: str, proc: Path = Path("/proc"), make_folder: Callable[[Path], None] = lambda path: path.mkdir()
    ) -> None:
        """Remove the empty groups of dead workers and make this one. `name` must be unique within this process.

        Raises OSError, with nothing left behind, if no group can be made.
        """
        self._proc = proc
        own, parent = _own_group(proc)
        _remove_left_over(parent, proc)
        directory = f"{_PREFIX}{os.getpid()}-{name}"
        self.folder = parent / directory
        self._path = f"{own.rstrip('/')}/{directory}"
        """As /proc/PID/cgroup shows it."""
        make_folder(self.folder)
        if not os.access(self.folder / "cgroup.kill", os.W_OK):
            self.folder.rmdir()
            raise OSError("this kernel has no cgroup.kill (Linux 5.14)")

    def add(self, pid: int) -> None:
        """Move a process into the group; what it starts from now on is in it too. Takes up to 10 ms.

        Raises OSError.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    def holds(self, pid: int) -> bool:
        """Whether a process is in this group or in one below it."""
        try:
            path = _version_2((self._proc / str(pid) / "cgroup").read_text())
        except OSError:
            return False  # it has ended
        return path is not None and f"{path}/".startswith(f"{self._path}/")


def _own_group(proc: Path) -> tuple[str, Path]:
    """Give the path of this process's own group, and its folder. Raises OSError."""
    path = _version_2((proc / "self/cgroup").read_text())
    if path is not None:
        for line in (proc / "self/mountinfo").read_text().splitlines():
            # id, parent, device, root, mount point, options, optional fields, a dash, type of the file system
            before, _, after = line.partition(" - ")
            _, _, _, root, mount_point, *_ = before.split()
            if after.startswith("cgroup2 ") and f"{path}/".startswith(f"{root.rstrip('/')}/"):
                return path, Path(mount_point) / path.removeprefix(root).lstrip("/")
    raise OSError("there is no control group of version 2 here")


def _version_2(text: str) -> str | None:
    return next((line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::")), None)


def _remove_left_over(parent: Path, proc: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not (proc / pid).exists():
            with contextlib.suppress(OSError):  # not empty, or removed by another worker
                if time.time() - folder.stat().st_mtime > _MIN_AGE_SECONDS:
                    folder.rmdir()
