"""Resident memory where the system has no /proc."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

MEASURE = """
import builtins, os, sys
sys.platform = {platform!r}
from reproq_listen.protocol import memory
def no_proc(*_):
    raise FileNotFoundError
memory.open = no_proc
print(memory.resident_bytes())
"""


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_memory_unit_of_the_peak_is_the_systems(platform: str, unit: int) -> None:
    """KiB, but bytes on macOS."""
    done = subprocess.run([sys.executable, "-c", MEASURE.format(platform=platform)], capture_output=True, check=True)
    size = int(done.stdout) // unit
    assert 1000 < size < 100 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
