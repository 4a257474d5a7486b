"""The reference in the README is made by the program. `python -m tests.readme` writes it anew."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from reproq_listen.cli import main as cli
from reproq_listen.cli.reference import reference

README = Path(__file__).resolve().parents[1] / "README.md"


def wanted() -> str:
    """The section, from its heading to the next one."""
    usage = textwrap.indent(cli.USAGE.format(program="reproq-listen").strip(), "    ", lambda line: bool(line.strip()))
    return (
        "## Reference\n\n"
        "Made by the program: `reproq-listen config --reference` prints it; each command has its own `--help`.\n\n"
        f"### Commands and exit codes\n\n{usage}\n\n{reference()}\n"
    )


def section() -> str:
    """What the README has of it."""
    found = re.search(r"^## Reference\n.*?(?=^## )", README.read_text(), re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


if __name__ == "__main__":
    text = README.read_text()
    now = section()
    text = text.replace(now, wanted()) if now else text.replace("## Developing\n", wanted() + "## Developing\n")
    README.write_text(text)
