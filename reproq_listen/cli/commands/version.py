"""`reproq-listen version`."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen import __version__
from reproq_listen.cli.output import CommandOutput
from reproq_listen.errors import ExitCode

USAGE = """
Usage:
  {program} version [options]

Options:
{version}

Exit codes: as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the version alone, for scripts to read."""
    output = CommandOutput(flags)
    output.result({"version": __version__}, __version__)
    return ExitCode.OK
