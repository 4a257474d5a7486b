"""Where a control group is made, and the reason if none can be made."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reproq_listen.executors.cleanup.cgroup import ControlGroup


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A version 2 hierarchy with a group `app/worker`."""
    (tmp_path / "mount/app/worker").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    return tmp_path / "mount"


def make_group(folder: Path) -> None:
    """As the kernel does it for mkdir: the new folder has files."""
    folder.mkdir()
    (folder / "cgroup.kill").touch()


def make(
    mount: Path, own: str, root: str = "/", kind: str = "cgroup2", make_folder: Callable[[Path], None] = make_group
) -> ControlGroup:
    proc = mount.parent / "proc"
    (proc / "self/cgroup").write_text(f"4:memory:/old\n{own}\n")
    (proc / "self/mountinfo").write_text(
        "25 20 0:22 / /proc rw - proc proc rw\n"
        f"41 31 0:38 {root} {mount} rw,relatime shared:9 - {kind} cgroup2 rw,nsdelegate\n"
    )
    return ControlGroup("x", proc, make_folder)


@pytest.mark.parametrize(
    ("own", "root", "place"),
    [
        ("0::/app/worker", "/", "app/worker"),
        ("0::/app/worker", "/app", "worker"),
        ("0::/app", "/app", "."),
        ("0::/", "/", "."),
    ],
)
def test_group_is_made_below_our_own(mount: Path, own: str, root: str, place: str) -> None:
    """Wherever the hierarchy is mounted, and whichever part of it."""
    (mount / place).mkdir(parents=True, exist_ok=True)
    group = make(mount, own, root)
    assert group.folder.parent == mount / place
    assert group.folder.is_dir()


@pytest.mark.parametrize(
    ("own", "root", "kind"),
    [("3:cpu:/", "/", "cgroup2"), ("0::/app", "/", "cgroup"), ("0::/application", "/app", "cgroup2")],
)
def test_cgroup_no_group_without_a_version_2_hierarchy(mount: Path, own: str, root: str, kind: str) -> None:
    """Version 1 only, no mount, or a mount of another part."""
    with pytest.raises(OSError, match="no control group of version 2"):
        make(mount, own, root, kind)


def test_kernel_without_cgroup_kill_leaves_nothing_behind(mount: Path) -> None:
    """Before Linux 5.14."""
    with pytest.raises(OSError, match=r"cgroup\.kill"):
        make(mount, "0::/app", make_folder=lambda folder: folder.mkdir())
    assert list((mount / "app").iterdir()) == [mount / "app/worker"]


def test_group_holds_processes_in_it_and_below(mount: Path) -> None:
    """Not those of a group whose name begins alike, or of one in another place."""
    group = make(mount, "0::/app")
    name = group.folder.name
    for pid, path in enumerate((f"/app/{name}", f"/app/{name}/more", "/app", f"/app/{name}1", f"/{name}"), 1):
        (mount.parent / f"proc/{pid}").mkdir()
        (mount.parent / f"proc/{pid}/cgroup").write_text(f"4:memory:/app/{name}\n0::{path}\n")
    assert [group.holds(pid) for pid in range(1, 7)] == [True, True, False, False, False, False]
