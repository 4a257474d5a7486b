"""Where the kernel counts its out-of-memory kills."""

from pathlib import Path

import pytest

from reproq_listen.executors.process.oom import OomCounter


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/vmstat").write_text("pgfault 5\noom_kill 3\n")
    return tmp_path / "proc"


def counted(proc: Path, file: str | None, text: str) -> OomCounter:
    cgroups = proc.parent / "cgroup"
    if file is not None:
        (cgroups / file).parent.mkdir(parents=True)
        (cgroups / file).write_text(text)
    return OomCounter(proc, cgroups)


def test_own_cgroup_counts_first(proc: Path) -> None:
    """Version 2, before version 1, before the host; the count is read each time."""
    (proc / "self/cgroup").write_text("4:memory:/old\n0::/app/worker\n")
    counter = counted(proc, "app/worker/memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n")
    assert counter.read() == 1
    (proc.parent / "cgroup/app/worker/memory.events").write_text("oom_kill 2\n")
    assert counter.read() == 2


def test_version_1(proc: Path) -> None:
    """Its controller may share a line with another."""
    (proc / "self/cgroup").write_text("5:cpu,memory:/job\n")
    assert counted(proc, "memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n").read() == 7


def test_host_counts_where_the_cgroup_does_not(proc: Path) -> None:
    """A container that does not see its own cgroup's files."""
    (proc / "self/cgroup").write_text("0::/\n")
    assert counted(proc, None, "").read() == 3


def test_nothing_to_count(tmp_path: Path) -> None:
    """Not Linux: always 0, no error."""
    assert OomCounter(tmp_path / "none", tmp_path / "none").read() == 0


def test_oom_each_kill_explains_one_end(proc: Path) -> None:
    """Kills from before the start explain nothing; two kills explain two ends, in whatever order they are asked for."""
    counter = counted(proc, None, "")
    assert not counter.explains_a_kill()
    (proc / "vmstat").write_text("oom_kill 5\n")
    assert counter.explains_a_kill()
    assert counter.explains_a_kill()
    assert not counter.explains_a_kill()
    (proc / "vmstat").write_text("oom_kill 6\n")
    assert counter.explains_a_kill()
