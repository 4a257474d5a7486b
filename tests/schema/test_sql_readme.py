"""The table of functions in sql/README.md is the functions there are, in the order of install.sql, in their words."""

from __future__ import annotations

import re

from tests.support.database import SQL_FOLDER

COMMENT = re.compile(r"comment on function (\w+)\(.*?\) is\s+'(.*?) @v\d+';", re.S)


def function_table() -> str:
    """What the README has to say: a heading and a table for each part of install.sql."""
    lines: list[str] = []
    for line in (SQL_FOLDER / "install.sql").read_text().splitlines():
        if line.startswith("-- ") and line.endswith(".") and line.count(" ") < 8:
            part = line[3:-1]
            heading = ["", f"**{part}**", "", "| function | what it does |", "|---|---|"]
        elif line.startswith("\\ir functions/"):
            text = (SQL_FOLDER / line.split()[1]).read_text()
            found = COMMENT.search(text)
            assert found, f"{line}: no comment that ends with @vN"
            lines += [*heading, f"| `{found[1]}` | {found[2].replace(chr(39) * 2, chr(39))} |"]
            heading = []
    return "\n".join(lines).strip()


def test_the_readme_lists_every_function() -> None:
    """One line each; when this fails, paste the text it shows."""
    readme = (SQL_FOLDER / "README.md").read_text()
    table = function_table()
    assert table in readme, f"sql/README.md, section Functions, must be:\n\n{table}"
