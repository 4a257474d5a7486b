"""Output that children write and input that they do not read: bounded, never blocking; and executors not ours."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.executing import FOREIGN, error_of, executor, outcome_of, run, run_foreign, task, value_of

pytestmark = pytest.mark.usefixtures("each_mode")


def resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the kernel does not tell VmRSS")


def test_flood_of_output_neither_blocks_nor_grows_the_worker() -> None:
    """64 MiB on stdout and as much on stderr: success, and less than 16 MiB more memory."""

    async def main() -> None:
        async with executor() as running:
            await outcome_of(running, task("flood", 1))
            before = resident_kib()
            assert value_of(await outcome_of(running, task("flood", 64))) == "dry again"
            assert resident_kib() - before < 16 << 10

    asyncio.run(main())


def test_large_result_comes_back_whole() -> None:
    """A result larger than any pipe's buffer."""
    assert value_of(run(task("text_of", 1_000_000))) == "x" * 1_000_000


def test_foreign_executor_gives_its_envelope_on_stdout() -> None:
    """Any program with the contract's command line and one JSON object on stdout."""
    assert run_foreign(say='{"ok": true, "return": {"a": 1.10}}').result == '{"a": 1.10}'
    assert run_foreign(say=' {"return": null, "ok": true, "more": [] }\n').result == "null"
    failed = error_of(
        run_foreign(say='{"ok": false, "exception_class": "E", "message": "m", "traceback": "t"}', status=1)
    )
    assert (failed.kind, failed.exception_class, failed.message, failed.traceback) == ("app_error", "E", "m", "t")


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        ("hello\n" + '{"ok": true}', "not one JSON object"),
        ('{"ok": true}{"ok": true}', "more than one"),
        ('{"ok": true}\nhello', "more than one"),
        ('{"ok": "true"}', "ok"),
        ('{"ok": 1}', "ok"),
        ('{"return": 1}', "ok"),
        ("[]", "not a JSON object"),
        ('{"ok": true, "return": NaN}', "NaN"),
        ('{"ok": true, "return": -Infinity}', "-Infinity"),
        ('{"ok": true, "return": "\xff"}', "not UTF-8"),
        ('{"ok": true, "return": ', "not one JSON object"),
        ("\xef\xbb\xbf" + '{"ok": true}', "not one JSON object"),
        ('{"ok": true, "return": 1e200000}', "1e200000"),
        ('{"ok": true, "return": "\\u0000"}', "NUL"),
        ('{"ok": true, "return": {"\\ud800": 1}}', "surrogate"),
        ('{"ok": true, "return": ' + "[" * 20_000 + "]" * 20_000 + "}", "nested"),
    ],
)
def test_unusable_envelope_is_invalid_result(say: str, reason: str) -> None:
    """Strict, with a definite reason."""
    error = error_of(run_foreign(say=say))
    assert error.kind == "invalid_result"
    assert reason in error.message


def test_executor_streams_no_envelope_and_garbage_with_a_bad_status_are_crashes() -> None:
    """No envelope and status 0 is a crash too; garbage with a bad status is a crash that mentions it."""
    assert error_of(run_foreign()).crash_class == "exit"
    error = error_of(run_foreign(say="Traceback ...", status=4, to_stderr="\xff boom"))
    assert (error.kind, error.exit_status, error.stderr_tail) == ("crashed", 4, "\ufffd boom")
    assert "not one JSON object" in error.message
    assert error_of(run_foreign(signal=11)).signal == "SIGSEGV"


def test_foreign_success_with_a_bad_end_is_a_success_with_a_warning() -> None:
    """As for our own executor."""
    outcome = run_foreign(say='{"ok": true, "return": 1}', status=3)
    assert value_of(outcome) == 1
    assert len(outcome.warnings) == 1
    outcome = run_foreign(say='{"ok": true, "return": 1}', signal=9)
    assert (value_of(outcome), len(outcome.warnings)) == (1, 1)


def test_foreign_flood_is_cut_and_definite() -> None:
    """64 MiB on stdout are not an envelope, and are not kept."""
    before = resident_kib()
    error = error_of(run_foreign(say="x" * 1024, times=64 << 10))
    assert (error.kind, "max_stdout_bytes" in error.message) == ("invalid_result", True)
    assert resident_kib() - before < 16 << 10


def test_long_error_of_a_foreign_executor_is_shortened() -> None:
    """An error with a long traceback is kept at both ends; one beyond the limit is a crash, since it failed."""
    envelope = json.dumps({"ok": False, "message": "m" * 20_000, "traceback": "a" * 50_000 + "\0z"})
    error = error_of(run_foreign(say=envelope, status=1))
    assert len(error.message) == 8192
    assert (error.traceback or "").endswith("a\ufffdz")
    assert len((error.traceback or "").encode()) <= 8192
    error = error_of(run_foreign(say='{"ok": false, "message": "', times=100_000, status=1))
    assert (error.kind, error.exit_status) == ("crashed", 1)


def test_child_that_never_reads_its_payload_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload larger than a pipe's buffer, and a child that answers without having read it."""
    monkeypatch.setenv("FOREIGN_SAY", '{"ok": true, "return": "not read"}')
    big = task("add", "x" * 500_000)
    assert value_of(run(big, executor_module=FOREIGN)) == "not read"


def test_large_payload_arrives_whole() -> None:
    """Fed as fast as the child reads."""
    text = "é" * 150_000
    assert value_of(run(task("echo", text))) == [[text], {}]
