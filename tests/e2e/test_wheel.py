"""Installed as a wheel, away from the checkout, the program has its migrations and its commands with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.database import ROOT, Database
from tests.support.documents import PAGES


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the checkout as it stands."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it; what it depends on is shared with this one."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    (site,) = venv.glob("lib/python3*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv


def run(venv: Path, *arguments: str) -> str:
    """Run a program of the environment, in a folder of its own and without our import path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DATABASE_URL")}
    program = [str(venv / "bin" / arguments[0]), *arguments[1:]]
    return subprocess.run(program, cwd=venv, env=environment, check=True, capture_output=True, text=True).stdout


def test_wheel_holds_the_database_side(wheel: Path) -> None:
    """sql/ and migrations/ lie side by side in it, every file, and nothing of the tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        packed = {name: archive.read(name) for name in names if "/_schema/" in name}
    for folder in ("sql", "migrations"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert packed[f"reproq_listen/_schema/{path.relative_to(ROOT)}"] == path.read_bytes()
    assert [name for name in names if name.startswith(("tests", "sql", "migrations")) or "__pycache__" in name] == []


def test_wheel_migrates(installed: Path, empty_database: Database) -> None:
    """`reproq-listen migrate` applies every step from inside the package; `yoyo ... package:...` sees them applied."""
    where = run(installed, "python", "-c", "import reproq_listen; print(reproq_listen.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    output = run(installed, "reproq-listen", "migrate", "--dsn", empty_database.dsn, "--output", "json")
    reports = [json.loads(line) for line in output.splitlines()]
    assert [report["outcome"] for report in reports] == ["applied"] * len(list((ROOT / "migrations").glob("0*.py")))

    params = conninfo_to_dict(empty_database.dsn)
    query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in params.items() if key != "dbname")
    url = f"postgresql+psycopg:///{empty_database.name}?{query}"
    yoyo = "import sys; from yoyo.scripts.main import main; main(sys.argv[1:])"
    source = "package:reproq_listen:_schema/migrations"
    listed = run(installed, "python", "-c", yoyo, "list", "--no-config-file", "--batch", "-d", url, source)
    assert [line.split()[:2] for line in listed.splitlines()[2:]] == [["A", report["step"]] for report in reports]


def test_wheel_has_the_pages(installed: Path) -> None:
    """`reproq-listen docs` lists and shows what the checkout has."""
    listed = run(installed, "reproq-listen", "docs")
    assert [line.split()[0] for line in listed.splitlines() if "  " in line] == [page.stem for page in PAGES]
    assert run(installed, "reproq-listen", "docs", "enqueue").startswith("# Enqueue")


def test_wheel_version_is_the_same_everywhere(installed: Path, wheel: Path) -> None:
    """The command, its alias and the wheel's name agree."""
    version = wheel.name.split("-")[1]
    assert version in run(installed, "reproq-listen", "version")
    assert version in run(installed, "reproq", "--version")
