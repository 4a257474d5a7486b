"""The demo: one command from nothing to finished tasks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(60)
def test_demo_runs_anywhere_and_leaves_nothing(tmp_path: Path) -> None:
    """In an empty folder: exit 0, all as planned, and no process or file of it is left."""
    mark = f"REPROQ_DEMO_MARK={tmp_path.name}-{os.getpid()}"
    name, _, value = mark.partition("=")
    done = subprocess.run(
        [sys.executable, "-m", "reproq_listen", "demo", "--files", "4"],
        cwd=tmp_path,
        env={**os.environ, name: value, "QUEUE_NAMES": "elsewhere", "ALLOWED_TASK_MODULES": ""},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 not as planned" in done.stdout
    assert list(tmp_path.iterdir()) == []
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if mark.encode() in _bytes(path)]
    assert left == []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ended meanwhile
        return b""
