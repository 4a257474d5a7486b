"""The process of one task, without a worker: what a signal does to a result on its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

from reproq_listen.protocol.executor import RESULT_FD_ENV
from tests.support.database import ROOT

TASKS = "tests.apps.tasks"


def test_result_on_its_way_is_not_torn_by_sigterm() -> None:
    """A result is sent completely or not at all: the signal comes while the pipe is full, and changes nothing."""
    reading, writing = os.pipe()
    spec = {"v": 1, "task_path": f"{TASKS}.echo", "args": ["x" * 300_000], "kwargs": {}}
    command = [sys.executable, "-m", "reproq_listen.executor", "--result-id", "1", "--attempt", "1", "--payload-stdin"]
    environ = {**os.environ, RESULT_FD_ENV: str(writing), "ALLOWED_TASK_MODULES": TASKS}
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(writing,),
        env=environ,
        cwd=ROOT,
    ) as child:
        os.close(writing)
        assert child.stdin is not None
        child.stdin.write(json.dumps(spec).encode())
        child.stdin.close()
        data = os.read(reading, 100)  # it is on its way, and fills the pipe
        child.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        while more := os.read(reading, 1 << 16):
            data += more
        os.close(reading)
        assert child.wait(10) == 0
    assert len(data) > 300_000
