"""What is written about the program is what the program says of itself."""

from __future__ import annotations

import re

import pytest

from reproq_listen.cli import main as cli
from reproq_listen.errors import ExitCode
from tests.readme import README, section, wanted


def test_the_readme_has_the_reference_of_this_version() -> None:
    """Commands, exit codes, flags, variables, keys, metrics, events. To cure: python -m tests.readme"""
    assert section() == wanted()


def test_every_exit_code_is_explained() -> None:
    """One line each in --help, and no line for a code that does not exist."""
    lines = re.findall(r"^  (\d+)  ", cli.USAGE, re.MULTILINE)
    assert sorted(map(int, lines)) == sorted({*(code.value for code in ExitCode), cli._INTERRUPTED, cli._NO_READER})


def test_every_command_is_listed() -> None:
    """In --help, once."""
    listed = re.findall(r"^  ([a-z]+)  +[A-Z]", cli.USAGE, re.MULTILINE)
    assert sorted(listed) == sorted(cli._COMMANDS)


def test_what_the_readme_types_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """Each `reproq-listen COMMAND ... --flag` in the README is a command with that flag."""
    said = re.findall(r"reproq-listen ([a-z]+)((?: [^`\n#|]*)?)", README.read_text().replace(section(), ""))
    for command, rest in said:
        if command in cli._COMMANDS:
            assert cli.main([command, "--help"]) == 0
            text = capsys.readouterr().out
            for flag in re.findall(r"(?<!\S)--[a-z-]+", rest):
                assert flag in text, f"{command} {flag}"
