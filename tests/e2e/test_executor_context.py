"""Metadata and stops while a task runs, its use of resources, and its output."""

import asyncio
import json
import resource
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.model import ClaimedTask, Outcome, StopReason
from tests.support.executing import (
    ended,
    error_of,
    executor,
    outcome_of,
    pid_in,
    run,
    run_foreign,
    task,
    until,
    value_of,
)

pytestmark = pytest.mark.usefixtures("each_mode")


def test_metadata_arrives_while_the_task_runs(tmp_path: Path) -> None:
    """In order, each object whole, and not mixed with the result."""

    async def main() -> None:
        metadata: list[bytes] = []
        async with executor(metadata=metadata) as running:
            attempt = await running.start(task("report", str(tmp_path / "go"), takes_context=True))
            await until(lambda: len(metadata) == 2, "two objects have come")
            (tmp_path / "go").touch()
            assert value_of(await ended(attempt)) == "reported"
        assert [json.loads(body) for body in metadata] == [
            {"stage": "begun", "count": 1},
            {"progress": {"fraction": 0.25, "message": "a quarter"}},
            {"progress": {"fraction": 0.5, "message": "half"}},
            {"stage": "nearly"},
        ]

    asyncio.run(main())


def test_wrong_metadata_raises_errors_that_the_task_may_catch() -> None:
    """Progress outside of 0 to 1, metadata too large, no JSON, infinite."""
    problems = value_of(run(task("report_badly", takes_context=True)))
    assert len(problems) == 6
    assert problems[3:] == ["ValueError", "TypeError", "ValueError"]


def test_flood_of_metadata_is_slow_for_the_task_only() -> None:
    """20,000 objects: all come through, in bounded memory."""
    metadata: list[bytes] = []

    async def main() -> None:
        async with executor(metadata=metadata) as running:
            assert value_of(await outcome_of(running, task("report_often", 20_000, takes_context=True))) == "often"

    asyncio.run(main())
    assert len(metadata) == 20_000
    assert json.loads(metadata[-1]) == {"number": 19_999}


def test_thread_that_goes_on_saving_does_not_spoil_the_result() -> None:
    """Nothing follows the result on the pipe."""
    assert value_of(run(task("leave_a_reporting_thread", takes_context=True))) == "done"


def wait_until_blocked(pid: int) -> None:
    """Wait, without giving the loop a turn, until a process sleeps each time it is looked at."""
    deadline = time.monotonic() + 10
    seen = 0
    while seen < 200:
        assert time.monotonic() < deadline, "the process goes on"
        seen = seen + 1 if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S" else 0


def test_stop_does_not_interrupt_a_write_of_metadata(tmp_path: Path) -> None:
    """Tasks are stopped in the middle of a write, because the pipe is full: each can still give its result. So can a
    task with a thread that writes."""

    async def stopped_while_it_writes(running: PerTaskExecutor, name: str, path: Path) -> Outcome:
        attempt = await running.start(task(name, str(path), takes_context=True))
        wait_until_blocked(await pid_in(path))  # the loop does not run meanwhile, so its pipe fills up
        attempt.stop(StopReason.SHUTDOWN)
        return await ended(attempt)

    async def main() -> None:
        async with executor() as running:
            for number, name in enumerate(["report_until_stopped"] * 3 + ["report_from_a_thread"] * 3):
                outcome = await stopped_while_it_writes(running, name, tmp_path / str(number))
                assert value_of(outcome) == "finished in time"

    asyncio.run(main())


def test_stop_can_be_held_back_for_a_piece_of_work(tmp_path: Path) -> None:
    """The block ends its work; then Stopped is raised, and the attempt ends as what stopped it."""
    path = tmp_path / "pid"

    async def main() -> None:
        async with executor() as running:
            attempt = await running.start(task("hold_a_stop", str(path), takes_context=True))
            await pid_in(path)
            attempt.stop(StopReason.CANCELLED)
            assert error_of(await ended(attempt)).kind == "cancelled"

    asyncio.run(main())
    assert Path(f"{path}.held").read_text() == "bye"


def test_usage_of_a_success() -> None:
    """Processor and wall time, memory and exit, of a success."""
    usage = run(task("burn", 0.3)).usage
    assert usage is not None
    assert 0.25 < usage.cpu_seconds < 5
    assert usage.wall_seconds > 0.25
    assert usage.peak_rss_bytes is not None
    assert 4 << 20 < usage.peak_rss_bytes < 1 << 30
    assert (usage.exit_status, usage.signal) == (0, None)


def test_peak_memory_is_that_of_this_attempt() -> None:
    """An attempt that takes 150 MiB has a peak that is larger by about that than of those before and after.

    The kernel counts for a child at least what its parent had when it was started: here the tests' own peak.
    """
    most = 150 + (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)

    async def main() -> None:
        async with executor() as running:
            peaks = []
            for mebibytes in (1, most, 1):
                usage = (await outcome_of(running, task("allocate", mebibytes))).usage
                assert usage is not None
                assert usage.peak_rss_bytes is not None
                peaks.append(usage.peak_rss_bytes)
            assert peaks[1] - peaks[0] > 90 << 20
            assert abs(peaks[2] - peaks[0]) < 10 << 20

    asyncio.run(main())


@pytest.mark.parametrize(
    ("what", "kind", "crash_class", "exit_status", "name"),
    [
        (task("fail", "x"), "app_error", None, 1, None),
        (task("leave", 3), "crashed", "exit", 3, None),
        (task("kill_me", int(signal.SIGSEGV)), "crashed", "signal", None, "SIGSEGV"),
        (task("burn", 60, timeout_seconds=1), "timeout", "timeout", None, "SIGTERM"),
    ],
    ids=["error", "exit", "signal", "timeout"],
)
def test_usage_of_a_failure(
    what: ClaimedTask, kind: str, crash_class: str | None, exit_status: int | None, name: str | None
) -> None:
    """With the class of a crash, and exit or signal."""
    error = error_of(run(what))
    assert (error.kind, error.crash_class, error.exit_status, error.signal) == (kind, crash_class, exit_status, name)
    assert error.wall_seconds is not None
    assert error.cpu_seconds is not None
    assert error.peak_rss_bytes is not None


def test_memory_beyond_the_limit_is_refused_to_the_task_alone() -> None:
    """An allocation fails, of class `oom`; within the limit all is as ever; the next task is not touched."""

    async def main() -> None:
        async with executor(memory_bytes=200 << 20) as running:
            error = error_of(await outcome_of(running, task("allocate", 400)))
            assert (error.kind, error.exception_class, error.crash_class) == ("app_error", "MemoryError", "oom")
            assert value_of(await outcome_of(running, task("allocate", 50))) == 50 << 20

    asyncio.run(main())


def test_output_is_kept_apart_from_the_result() -> None:
    """Both streams, whole if they are short."""
    outcome = run(task("shout", "hello"))
    assert value_of(outcome) == "said"
    assert outcome.stdout is not None
    assert outcome.stderr is not None
    assert (outcome.stdout.head + outcome.stdout.tail).startswith(b"hello\n")
    assert not outcome.is_result_on_stdout


def test_output_is_kept_with_its_beginning_and_its_end() -> None:
    """8 MiB on each stream, 64 KiB of each kept."""
    outcome = run(task("flood", 8), grace=timedelta(seconds=1))
    for output in (outcome.stdout, outcome.stderr):
        assert output is not None
        assert output.total == 8 << 20
        assert (len(output.head), len(output.tail)) == (16 << 10, 48 << 10)


def test_executor_context_stdout_of_a_foreign_executor_is_its_result() -> None:
    """The outcome says so, because a result is not for the log."""
    outcome = run_foreign(say='{"ok": true, "return": 5}')
    assert outcome.is_result_on_stdout
