"""Telling a task that the kernel killed for want of memory from one that somebody else killed."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


class OomCounter:
    """Counts the kernel's out-of-memory kills around this process.

    Its own cgroup's count where there is one (version 2, then 1), else the host's; 0 for ever without either.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> None:
        candidates = [*_cgroup_files(proc, cgroups), proc / "vmstat"]
        self._file = next((file for file in candidates if _count(file) is not None), None)
        self._seen = self.read()
        self._unexplained = 0

    def explains_a_kill(self) -> bool:
        """Whether the kernel has killed once more than this has been asked about. Costs nothing while none asks."""
        now = self.read()
        self._unexplained += now - self._seen
        self._seen = now
        if self._unexplained <= 0:
            return False
        self._unexplained -= 1
        return True

    def read(self) -> int:
        return (_count(self._file) or 0) if self._file is not None else 0


def _cgroup_files(proc: Path, cgroups: Path) -> list[Path]:
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in sorted(lines, key=lambda line: not line.startswith("0::")):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            files.append(cgroups / path.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            files.append(cgroups / "memory" / path.lstrip("/") / "memory.oom_control")
    return files


def _count(file: Path) -> int | None:
    try:
        words = file.read_text().split()
    except OSError:
        return None
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else None
