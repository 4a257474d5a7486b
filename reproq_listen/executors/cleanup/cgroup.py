"""A control group (cgroup version 2) around everything that tasks start.

Nothing leaves it by a session of its own, by another environment or by the death of its parent, and the kernel kills
all that is in it at once. It is made below this process's own group, which must be writable: as root, or where
systemd has delegated it (`Delegate=yes`).
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "reproq-"
_MIN_AGE_SECONDS = 60.0
"""A group that is younger is not taken for left over."""
_FREEZE_SECONDS = 0.1


class ControlGroup:
    """Owns the folder until the guard removes it. This process itself stays outside."""

    def __init__(self, name: str, proc: Path = Path("/proc")) -> None:
        """`name`: no other group of this process has it. Raises OSError, with nothing left behind, if there is no such
        group to be had. Groups that dead processes have left empty are removed."""
        self._proc = proc
        own, folder = _own_group(proc)
        _sweep(folder, proc)
        directory = f"{_PREFIX}{os.getpid()}-{name}"
        self.folder = folder / directory
        self._path = f"{own.rstrip('/')}/{directory}"
        """As /proc/PID/cgroup tells it."""
        self.folder.mkdir()
        if not os.access(self.folder / "cgroup.kill", os.W_OK):
            self.folder.rmdir()
            raise OSError("this kernel has no cgroup.kill (Linux 5.14)")

    def add(self, pid: int) -> None:
        """Move a process here; what it starts from now on is born here. Takes 10 ms when that is rare.

        Raises OSError.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    def holds(self, pid: int) -> bool:
        """Whether a process is in this group or in one below."""
        try:
            path = _version_2((self._proc / str(pid) / "cgroup").read_text())
        except OSError:
            return False  # ended meanwhile
        return path is not None and f"{path}/".startswith(f"{self._path}/")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[bool]:
        """Inside this block nothing in this group runs; what is killed dies all the same. Gives whether it is so: if it
        does not come at once, it does without."""
        freezer = self.folder / "cgroup.freeze"
        try:
            freezer.write_text("1")
            yield self._is_frozen()
        finally:
            freezer.write_text("0")

    def _is_frozen(self) -> bool:
        deadline = time.monotonic() + _FREEZE_SECONDS
        while "frozen 1" not in (self.folder / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                return False
            time.sleep(_FREEZE_SECONDS / 100)
        return True


def _own_group(proc: Path) -> tuple[str, Path]:
    """Give the path of this process's own group, and its folder. Raises OSError."""
    path = _version_2((proc / "self/cgroup").read_text())
    if path is not None:
        for line in (proc / "self/mountinfo").read_text().splitlines():
            # id, parent, device, root, mount point, options, more or nothing, a dash, the file system's type
            before, _, after = line.partition(" - ")
            _, _, _, root, mount_point, *_ = before.split()
            if after.startswith("cgroup2 ") and f"{path}/".startswith(f"{root.rstrip('/')}/"):
                return path, Path(mount_point) / path.removeprefix(root).lstrip("/")
    raise OSError("there is no control group of version 2 here")


def _version_2(text: str) -> str | None:
    return next((line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::")), None)


def _sweep(folder: Path, proc: Path) -> None:
    for left in folder.glob(f"{_PREFIX}*-*"):
        pid = left.name.split("-")[1]
        if pid.isdigit() and not (proc / pid).exists():
            with contextlib.suppress(OSError):  # not empty, or gone meanwhile
                # Another container's worker may have made it just now: its pid is not in our /proc.
                if time.time() - left.stat().st_mtime > _MIN_AGE_SECONDS:
                    left.rmdir()
