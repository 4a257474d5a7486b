"""A task that leaves open whatever a process closes at its end, and imports that did so before it."""

from __future__ import annotations

import gzip
import json
import logging.handlers
import multiprocessing.util
import tempfile
import weakref
from pathlib import Path
from typing import Any

from reproq_listen.model import ClaimedTask
from tests.support.executing import claimed

KEPT: list[Any] = [set()]
weakref.finalize(KEPT[0], int)  # from now on it is this process that calls finalizers at its end


def leave_open(folder: str) -> str:
    """Gives a temporary folder that goes with the process."""
    place = Path(folder)
    plain = (place / "plain").open("w")
    packed = gzip.open(place / "packed.gz", "wt")  # noqa: SIM115
    for file in (plain, packed):
        file.write("written")
    target = logging.FileHandler(place / "log")
    handler = logging.handlers.MemoryHandler(1000, target=target)
    handler.handle(logging.makeLogRecord({"msg": "logged", "levelno": logging.INFO}))
    temporary = tempfile.TemporaryDirectory()
    KEPT.extend([plain, packed, target, handler, temporary])
    multiprocessing.util.Finalize(None, (place / "finalized").touch, exitpriority=1)
    return temporary.name


def task(folder: Path) -> ClaimedTask:
    """`leave_open` in this folder."""
    path = f"{__name__}.leave_open"
    return claimed(json.dumps({"v": 1, "task_path": path, "args": [str(folder)], "kwargs": {}}), path)


def is_written(folder: Path) -> bool:
    """Whether all of it has been brought to its end."""
    try:
        with gzip.open(folder / "packed.gz", "rt") as packed:
            words = [(folder / "plain").read_text(), packed.read(), (folder / "log").read_text()]
    except EOFError:
        return False
    return words == ["written", "written", "logged\n"] and (folder / "finalized").exists()
