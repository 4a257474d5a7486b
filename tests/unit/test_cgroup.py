"""Where a control group is looked for, and what is said if there is none."""

from pathlib import Path

import pytest

from reproq_listen.executors.cleanup.cgroup import ControlGroup


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A version 2 hierarchy with a group `app/worker`, in which each new folder has a cgroup.kill already."""
    (tmp_path / "mount/app/worker").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path / "mount"


def make(mount: Path, own: str, root: str = "/", kind: str = "cgroup2") -> ControlGroup:
    proc = mount.parent / "proc"
    (proc / "self/cgroup").write_text(f"4:memory:/old\n{own}\n")
    (proc / "self/mountinfo").write_text(
        "25 20 0:22 / /proc rw - proc proc rw\n"
        f"41 31 0:38 {root} {mount} rw,relatime shared:9 - {kind} cgroup2 rw,nsdelegate\n"
    )
    return ControlGroup("x", proc)


@pytest.mark.parametrize(
    ("own", "root", "place"),
    [
        ("0::/app/worker", "/", "app/worker"),
        ("0::/app/worker", "/app", "worker"),
        ("0::/app", "/app", "."),
        ("0::/", "/", "."),
    ],
)
def test_it_is_made_below_our_own(
    mount: Path, own: str, root: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the hierarchy is mounted, and whatever part of it."""
    monkeypatch.setattr("os.access", lambda path, mode: True)
    (mount / place).mkdir(parents=True, exist_ok=True)
    group = make(mount, own, root)
    assert group.folder.parent == mount / place
    assert group.folder.is_dir()


@pytest.mark.parametrize(
    ("own", "root", "kind"),
    [("3:cpu:/", "/", "cgroup2"), ("0::/app", "/", "cgroup"), ("0::/application", "/app", "cgroup2")],
)
def test_there_is_none(mount: Path, own: str, root: str, kind: str) -> None:
    with pytest.raises(OSError, match="no control group of version 2"):
        make(mount, own, root, kind)


def test_a_kernel_without_the_kill_leaves_nothing_behind(mount: Path) -> None:
    with pytest.raises(OSError, match=r"cgroup\.kill"):
        make(mount, "0::/app")
    assert list((mount / "app").iterdir()) == [mount / "app/worker"]


def test_a_process_is_in_it_or_below(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    group = make(mount, "0::/app")
    name = group.folder.name
    for pid, path in enumerate((f"/app/{name}", f"/app/{name}/more", "/app", f"/app/{name}1", f"/{name}"), 1):
        (mount.parent / f"proc/{pid}").mkdir()
        (mount.parent / f"proc/{pid}/cgroup").write_text(f"4:memory:/app/{name}\n0::{path}\n")
    assert [group.holds(pid) for pid in range(1, 7)] == [True, True, False, False, False, False]
