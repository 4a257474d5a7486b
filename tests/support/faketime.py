"""Clocks of other processes, by libfaketime (Debian: the package of that name; another copy: REPROQ_TEST_FAKETIME)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def environment(offsets: Path) -> dict[str, str]:
    """For a process whose wall clock is off by what stands in `offsets`, such as +600. Skips without the library."""
    given = os.environ.get("REPROQ_TEST_FAKETIME")
    found = [Path(given)] if given else sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME_TIMESTAMP_FILE": str(offsets),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
