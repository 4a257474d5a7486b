"""sql/README.md names every folder of functions, the functions that other programs call, and only what there is."""

from __future__ import annotations

import re

from tests.support.database import ROOT, SQL_FOLDER

README = (SQL_FOLDER / "README.md").read_text()
ROW = re.compile(r"^\| `functions/([\w/]+)/` \| [^|]+ \| ([^|]*)\|$", re.MULTILINE)


def test_sql_readme_table_of_folders_lists_the_interface() -> None:
    """A row for each folder, with its functions that are not internal, in order: what `reproq_*` names."""
    functions = SQL_FOLDER / "functions"
    folders = {str(path.parent.relative_to(functions)) for path in functions.glob("**/*.sql")}
    expected = {
        folder: sorted(path.stem for path in (functions / folder).glob("reproq_*.sql")) for folder in sorted(folders)
    }
    assert {folder: re.findall(r"`(\w+)`", names) for folder, names in ROW.findall(README)} == expected


def test_sql_readme_names_are_there() -> None:
    """Every object that the page mentions has a file."""
    names = {path.stem for path in SQL_FOLDER.glob("**/*.sql")}
    outside = {
        "reproq_ready",
        "reproq_control",
        "reproq_ended",
        "_reproq_adopted",
    }  # channels, a table of the migrations
    roles = set(re.findall(r"reproq_\w+", (SQL_FOLDER / "roles.sql").read_text()))
    mentioned = set(re.findall(r"`(_?reproq_\w+)(?:\(\))?`", README))
    assert mentioned - names - outside - roles == set()


def test_sql_readme_every_step_has_a_line() -> None:
    """migrations/README.md describes each step."""
    text = (ROOT / "migrations" / "README.md").read_text()
    steps = sorted(path.stem for path in (ROOT / "migrations").glob("[0-9]*") if "_release_" not in path.stem)
    assert re.findall(r"^\| `(\d\w+)` \|", text, re.MULTILINE) == steps
