"""`reproq-listen version`."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen import __version__
from reproq_listen.cli.output import Output
from reproq_listen.errors import ExitCode

USAGE = """
Print the version.

Usage:
  {program} version [options]

Options:
  --output FORMAT  text, or json: one object with version (text).
  -h --help        Show this.

Exit codes: as {program} --help says.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the version alone, for scripts to read."""
    output = Output(flags["--output"])
    output.said({"version": __version__}, __version__)
    return ExitCode.OK
