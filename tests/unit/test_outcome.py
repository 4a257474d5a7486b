"""From what a child left behind to the outcome: every combination of envelope, exit and reason of a stop."""

import itertools
import signal
from typing import Any

import pytest

from reproq_listen.executors.outcome import ExitReport, outcome_of
from reproq_listen.executors.process.exits import Exit
from reproq_listen.model import CapturedOutput, Outcome, ResourceUsage, StopReason

GOOD = b'{"ok": true, "return": 1}'
BAD = b'{"ok": false, "exception_class": "E", "message": "m"}'
UNSTORABLE = b'{"ok": true, "return": "\\u0000"}'


def outcome(**changes: Any) -> Outcome:
    stderr = changes.pop("stderr", b"")
    values: dict[str, Any] = {
        "exit": Exit(status=changes.pop("status", 0), cpu_seconds=0.25, peak_rss_bytes=4096),
        "wall_seconds": 1.5,
        "body": None,
        "body_problem": None,
        "stdout": CapturedOutput(head=b"", tail=b"", total=0),
        "stderr": CapturedOutput(head=b"", tail=stderr, total=len(stderr)),
        "stopped": None,
        "time_limit_seconds": 2.5,
        "saw_oom_kill": False,
    }
    return outcome_of(ExitReport(**(values | changes)))


def kind(**changes: Any) -> str | None:
    error = outcome(**changes).error
    return error.kind if error is not None else None


@pytest.mark.parametrize("status", [0, 1, -9, -15, None])
@pytest.mark.parametrize("stopped", [None, *StopReason])
def test_good_result_always_counts(status: int | None, stopped: StopReason | None) -> None:
    """The first definite outcome wins; a bad end after it is a warning."""
    decided = outcome(body=GOOD, status=status, stopped=stopped)
    assert (decided.result, decided.error) == ("1", None)
    assert len(decided.warnings) == (1 if status else 0)


def test_stop_explains_whatever_is_not_a_good_result() -> None:
    """No envelope, an error, garbage, any status: the kind is the reason of the stop."""
    for reason, body, status in itertools.product(StopReason, [None, BAD, b"x", b""], [0, 1, -15, -9, None]):
        assert kind(stopped=reason, body=body, status=status) == reason.value


def test_message_of_a_timeout_has_the_limit() -> None:
    """In seconds."""
    error = outcome(stopped=StopReason.TIMEOUT, status=-9).error
    assert error is not None
    assert "2.5 seconds" in error.message
    assert error.crash_class == "timeout"


@pytest.mark.parametrize(("status", "exit_status", "name"), [(0, 0, None), (3, 3, None), (-9, None, "SIGKILL")])
def test_usage_is_kept_with_success_and_failure(status: int, exit_status: int | None, name: str | None) -> None:
    """Wall and CPU seconds, the peak of memory, exit status or signal: with a result, and in an error."""
    usage = ResourceUsage(wall_seconds=1.5, cpu_seconds=0.25, peak_rss_bytes=4096, exit_status=exit_status, signal=name)
    assert outcome(body=GOOD, status=status).usage == usage
    failed = outcome(body=BAD, status=status)
    error = failed.error
    assert error is not None
    assert failed.usage == usage
    assert (error.wall_seconds, error.cpu_seconds, error.peak_rss_bytes) == (1.5, 0.25, 4096)
    assert (error.exit_status, error.signal) == (exit_status, name)


def test_memory_error_is_of_crash_class_oom() -> None:
    """Where the limit was the process's own, no signal shows that memory ran out."""
    body = b'{"ok": false, "exception_class": "MemoryError", "message": ""}'
    error = outcome(body=body, status=1).error
    assert error is not None
    assert (error.kind, error.crash_class) == ("app_error", "oom")


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"body": BAD, "status": 1}, "app_error"),
        ({"body": BAD, "status": 0}, "app_error"),
        ({"body": BAD, "status": -9}, "app_error"),
        ({"body": UNSTORABLE}, "invalid_result"),
        ({"body": UNSTORABLE, "status": 1}, "invalid_result"),
        ({"body": b"garbage"}, "invalid_result"),
        ({"body": b"garbage", "status": 1}, "crashed"),
        ({"body": b"garbage", "status": -11}, "crashed"),
        ({"body_problem": "too large"}, "invalid_result"),
        ({"body_problem": "too large", "status": 1}, "crashed"),
        ({}, "crashed"),
        ({"body": b""}, "crashed"),
        ({"status": 127}, "crashed"),
        ({"status": -11}, "crashed"),
        ({"status": None}, "crashed"),
        ({"body": BAD, "status": None}, "app_error"),
    ],
)
def test_kind_of_an_attempt_that_was_not_stopped(report: dict[str, Any], expected: str) -> None:
    """An envelope is believed; without one, a process that ended well gave an invalid result, any other crashed."""
    assert kind(**report) == expected


@pytest.mark.parametrize(
    ("status", "saw_oom_kill", "crash_class", "name", "exit_status"),
    [
        (0, False, "exit", None, 0),
        (3, True, "exit", None, 3),
        (-signal.SIGSEGV, True, "signal", "SIGSEGV", None),
        (-signal.SIGKILL, False, "signal", "SIGKILL", None),
        (-signal.SIGKILL, True, "oom", "SIGKILL", None),
        (-40, False, "signal", "signal 40", None),
        (None, True, "exit", None, None),
    ],
)
def test_class_of_a_crash(
    status: int | None, saw_oom_kill: bool, crash_class: str, name: str | None, exit_status: int | None
) -> None:
    """exit, signal, or oom: killed by SIGKILL while the kernel was killing because memory ran out."""
    error = outcome(status=status, saw_oom_kill=saw_oom_kill, stderr=b"\xffboom\0").error
    assert error is not None
    assert (error.crash_class, error.signal, error.exit_status) == (crash_class, name, exit_status)
    assert error.stderr_tail == "\ufffdboom\ufffd"
