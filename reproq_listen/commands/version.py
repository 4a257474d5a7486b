"""`reproq-listen version`."""

from __future__ import annotations

from collections.abc import Mapping

from reproq_listen import __version__
from reproq_listen.errors import ExitCode

USAGE = """
Print the version.

Usage:
  {program} version
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print the version alone, for scripts to read."""
    print(__version__)
    return ExitCode.OK
