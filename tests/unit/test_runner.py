"""The process of one task, without a worker: what a signal does to a result on its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest

from reproq_listen import Retry, task
from reproq_listen.child.payload import ReceivedTask
from reproq_listen.child.results import dumps
from reproq_listen.child.runner import bad_envelope, run
from reproq_listen.protocol.executor import RESULT_FD_ENV
from tests.support.database import ROOT

if TYPE_CHECKING:
    from reproq_listen.child.context import Link

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


def failed(function: Callable[[], object]) -> dict[str, Any]:
    """The envelope of a task that raises what this raises."""
    try:
        function()
    except BaseException as error:  # noqa: BLE001 - as the runner does
        envelope: dict[str, Any] = json.loads(bad_envelope(error))
        return envelope
    raise AssertionError


@task
def decorated() -> None:
    raise LookupError("sku")


def test_traceback_of_a_decorated_task_starts_in_the_task() -> None:
    """The decorator's own frame is left out as those of the runner are."""
    path = f"{__name__}.decorated"
    payload = json.dumps({"v": 1, "task_path": path, "args": [], "kwargs": {}}).encode()
    _, body = run(ReceivedTask(1, 1, payload), cast("Link", None), (path,))
    trace = json.loads(body)["traceback"]
    assert "LookupError: sku" in trace
    assert "reproq_listen/" not in trace


def test_wish_from_none_hides_the_error_before_it() -> None:
    """`raise Retry(...) from None` says that the error that led to it is of no interest."""

    def hide() -> None:
        try:
            raise LookupError("sku")
        except LookupError:
            raise Retry(after=5) from None

    def show() -> None:
        try:
            raise LookupError("sku")
        except LookupError:
            raise Retry(after=5)  # noqa: B904 - that is the case

    assert failed(show)["exception_class"] == "LookupError"
    assert "exception_class" not in failed(hide)


def test_value_with_half_a_surrogate_pair_is_named() -> None:
    """The error says what cannot be stored; it does not fail itself."""
    with pytest.raises(ValueError, match=r"the value of step 'x' cannot be stored as JSON: .*surrogates"):
        dumps("\ud800", "the value of step 'x'", 100)
