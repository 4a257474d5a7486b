"""Released texts and steps never change; the newest release is the live text; no file of sql/ is left out."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tests.support.database import ROOT, SQL_FOLDER, install_script

MIGRATIONS = ROOT / "migrations"
RELEASED = SQL_FOLDER / "released"
VERSIONED = [path for kind in ("functions", "triggers", "views") for path in sorted(SQL_FOLDER.glob(f"{kind}/*.sql"))]
KINDS = {"functions": "function", "tables": "table", "triggers": "trigger", "views": "view"}


def newest(name: str) -> tuple[int, Path]:
    """The highest version of an object in sql/released, and its file."""
    versions = {int(path.suffixes[-2][2:]): path for path in RELEASED.glob(f"{name}.v*.sql")}
    assert versions, f"{name} was never frozen: make freeze FN={name}"
    assert sorted(versions) == list(range(1, len(versions) + 1)), f"{name}: a version is missing"
    return max(versions), versions[max(versions)]


@pytest.mark.parametrize("live", VERSIONED, ids=lambda path: path.stem)
def test_the_newest_release_is_the_live_text(live: Path) -> None:
    """What the next migration installs is what people read; an edit of a live file is frozen before it is merged."""
    _, released = newest(live.stem)
    assert released.read_bytes() == live.read_bytes(), f"run: make freeze FN={live.stem}, and add a step"


@pytest.mark.parametrize(
    "live", [path for path in VERSIONED if path.parent.name == "functions"], ids=lambda path: path.stem
)
def test_the_comment_names_the_version(live: Path) -> None:
    r"""`\df+` shows which version of a function a database has: its comment ends with @vN, the newest release."""
    version, _ = newest(live.stem)
    assert re.findall(r"@v(\d+)'", live.read_text()) == [str(version)]


def test_checksums_hold_for_every_step_and_release() -> None:
    """SHA256SUMS lists each step and each released text; none was changed, none is missing."""
    lines = [line.split("  ", 1) for line in (MIGRATIONS / "SHA256SUMS").read_text().splitlines()]
    listed = {name: checksum for checksum, name in lines}
    files = [path for path in MIGRATIONS.iterdir() if path.suffix in (".py", ".sql")]
    there = {path.name: path for path in files} | {f"../sql/released/{path.name}": path for path in RELEASED.iterdir()}
    assert listed.keys() == there.keys(), "run: make freeze"
    changed = [name for name, path in there.items() if hashlib.sha256(path.read_bytes()).hexdigest() != listed[name]]
    assert changed == []


def test_every_released_text_is_loaded_by_a_step() -> None:
    """A frozen copy that no step installs would be a change that never arrives."""
    steps = "\n".join(path.read_text() for path in MIGRATIONS.glob("*.py"))
    first = {path.name.removesuffix(".v1.sql") for path in RELEASED.glob("*.v1.sql")}
    assert [name for name in sorted(first) if f'"{name}"' not in steps] == []
    later = [path.name for path in RELEASED.iterdir() if not path.name.endswith(".v1.sql")]
    assert [name for name in sorted(later) if name not in steps] == []


def test_install_script_includes_every_file() -> None:
    """sql/install.sql names each object once, and each file exists."""
    script = install_script()
    assert len(script) == len(set(script))
    assert set(script) == {path for kind in KINDS for path in SQL_FOLDER.glob(f"{kind}/*.sql")}


@pytest.mark.parametrize("path", install_script(), ids=lambda path: path.stem)
def test_a_file_holds_the_object_of_its_name(path: Path) -> None:
    """One object a file, and the file is named after it."""
    kind = KINDS[path.parent.name]
    assert re.findall(rf"^create (?:or replace )?{kind} (\w+)", path.read_text(), re.MULTILINE) == [path.stem]


@pytest.mark.parametrize(
    "path", [path for path in VERSIONED if path.parent.name == "functions"], ids=lambda path: path.stem
)
def test_volatility_is_declared(path: Path) -> None:
    """Every function says itself what it may do to rows and in parallel plans; defaults are never relied on."""
    head = path.read_text().split("$$", 1)[0]
    assert re.search(r"\b(immutable|stable|volatile)\b", head)
    assert re.search(r"\bparallel (safe|restricted|unsafe)\b", head)
