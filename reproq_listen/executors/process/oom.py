"""Whether a killed task was killed by the kernel, because memory ran out."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


class OomCounter:
    """Counts the kernel's out-of-memory kills around this process.

    Uses the count of its own cgroup (version 2, then 1), else the host's. Without either, the count is always 0.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> None:
        candidates = [*_cgroup_files(proc, cgroups), proc / "vmstat"]
        self._file = next((file for file in candidates if _count(file) is not None), None)
        self._last = self.read()
        self._unexplained = 0

    def explains_a_kill(self) -> bool:
        """Whether the kernel has killed more processes than this method has explained. Call once per killed child."""
        now = self.read()
        self._unexplained += now - self._last
        self._last = now
        if self._unexplained <= 0:
            return False
        self._unexplained -= 1
        return True

    def read(self) -> int:
        """Give the count."""
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
