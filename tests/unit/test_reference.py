"""What is written about the program is what the program says of itself."""

from __future__ import annotations

import re

import pytest

from reproq_listen.cli import main as cli
from reproq_listen.errors import ExitCode
from tests.support.reference import DOCS, FROM_PROGRAM, page


@pytest.mark.parametrize("name", FROM_PROGRAM)
def test_reference_page_is_up_to_date(name: str) -> None:
    """Commands, exit codes, settings, metrics, events. Remedy: make docs."""
    assert (DOCS / f"{name}.md").read_text() == page(FROM_PROGRAM[name]()), "run: make docs"


def test_reference_every_exit_code_is_explained() -> None:
    """One line each in --help, and no line for a code that does not exist."""
    lines = re.findall(r"^  (\d+)  ", cli.USAGE, re.MULTILINE)
    assert sorted(map(int, lines)) == sorted({*(code.value for code in ExitCode), cli._INTERRUPTED, cli._NO_READER})


def test_reference_every_command_is_listed() -> None:
    """In --help, once."""
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", cli.usage("reproq-listen"), re.MULTILINE)
    assert sorted(listed) == sorted(cli.COMMANDS)
