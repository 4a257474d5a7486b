"""What a release froze never changes; comments name releases; no file of sql/ is left out of install.sql."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tests.support.database import ROOT, SQL_FOLDER, install_script

MIGRATIONS = ROOT / "migrations"
RELEASED = SQL_FOLDER / "released"
FUNCTIONS = sorted(SQL_FOLDER.glob("functions/**/*.sql"))
KINDS = {"functions": "function", "tables": "table", "triggers": "trigger", "views": "view"}


def kind_of(path: Path) -> str:
    """The kind of object that a file of sql/ holds."""
    return KINDS[path.relative_to(SQL_FOLDER).parts[0]]


def released_texts() -> list[str]:
    """All that releases froze."""
    return [path.read_text() for path in RELEASED.rglob("*.sql")]


def test_versions_what_was_released_is_sealed_and_unchanged() -> None:
    """SHA256SUMS lists each released file, and the steps that were there; none was changed, none is missing."""
    seals = MIGRATIONS / "SHA256SUMS"
    lines = [line.split("  ", 1) for line in seals.read_text().splitlines()] if seals.exists() else []
    listed = {name: checksum for checksum, name in lines}
    released = {f"../sql/{path.relative_to(SQL_FOLDER)}" for path in RELEASED.rglob("*.sql")}
    assert {name for name in listed if name.startswith("../")} == released, "run: make release VERSION=..."
    if released:
        assert "0001_reproq_tables.py" in listed
    assert [name for name in listed if not (MIGRATIONS / name).exists()] == []
    sums = {name: hashlib.sha256((MIGRATIONS / name).read_bytes()).hexdigest() for name in listed}
    assert sums == listed


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.stem)
def test_versions_comment_names_the_release(path: Path) -> None:
    r"""`\df+` shows which release of a function a database has: its comment ends with the one that changed it last."""
    text = path.read_text()
    versions = re.findall(r" @(\d+\.\d+\.\d+)';", text)
    assert len(versions) == 1
    if not any(text in frozen for frozen in released_texts()):
        assert not [*RELEASED.glob(f"{versions[0]}*")], (
            f"{path.stem} changed after {versions[0]}: name the next release"
        )


def test_install_script_includes_every_file() -> None:
    """sql/install.sql names each object once, and each file exists."""
    script = install_script()
    assert len(script) == len(set(script))
    assert set(script) == {path for kind in KINDS for path in SQL_FOLDER.glob(f"{kind}/**/*.sql")}


def test_versions_no_two_objects_have_one_name() -> None:
    """A later release keeps its files in one folder, named after the objects."""
    names = [path.stem for path in install_script()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", install_script(), ids=lambda path: path.stem)
def test_versions_file_holds_the_object_of_its_name(path: Path) -> None:
    """One object a file, and the file is named after it."""
    assert re.findall(rf"^create (?:or replace )?{kind_of(path)} (\w+)", path.read_text(), re.MULTILINE) == [path.stem]


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.stem)
def test_volatility_is_declared(path: Path) -> None:
    """Every function says itself what it may do to rows and in parallel plans; defaults are never relied on."""
    head = path.read_text().split("$$", 1)[0]
    assert re.search(r"\b(immutable|stable|volatile)\b", head)
    assert re.search(r"\bparallel (safe|restricted|unsafe)\b", head)


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: path.stem)
def test_internal_functions_are_named_so(path: Path) -> None:
    """What stands in internal/ or trigger/ begins with an underscore."""
    if {"internal", "trigger"} & {*path.relative_to(SQL_FOLDER).parts}:
        assert path.stem.startswith("_reproq_")
