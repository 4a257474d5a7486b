"""What a task may say while it runs, what it may ask, what it used, and what becomes of what it prints."""

import asyncio
import json
import resource
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.executors.process.pipes import Frame
from reproq_listen.model import ClaimedTask, Outcome, StopReason
from reproq_listen.protocol.executor import NOTE_MAGIC, frame
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


def test_notes_arrive_while_the_task_runs(tmp_path: Path) -> None:
    """In order, each whole; the result is not mixed with them."""

    async def main() -> None:
        notes: list[bytes] = []
        async with executor(notes=notes) as running:
            attempt = await running.start(task("report", str(tmp_path / "go"), takes_context=True))
            await until(lambda: len(notes) == 2, "two notes have come")
            (tmp_path / "go").touch()
            assert value_of(await ended(attempt)) == "reported"
        assert [json.loads(note) for note in notes] == [
            {"stage": "begun", "count": 1},
            {"progress": {"fraction": 0.25, "message": "a quarter"}},
            {"progress": {"fraction": 0.5, "message": "half"}},
            {"stage": "nearly"},
        ]

    asyncio.run(main())


def test_wrong_notes_are_errors_of_the_task_that_it_may_catch() -> None:
    """Progress outside of 0 to 1, metadata too large, no JSON, infinite."""
    problems = value_of(run(task("report_badly", takes_context=True)))
    assert len(problems) == 6
    assert problems[3:] == ["ValueError", "TypeError", "ValueError"]


def test_a_flood_of_notes_is_slow_for_the_task_only() -> None:
    """20,000 notes: all come through, in bounded memory."""
    notes: list[bytes] = []

    async def main() -> None:
        async with executor(notes=notes) as running:
            assert value_of(await outcome_of(running, task("report_often", 20_000, takes_context=True))) == "often"

    asyncio.run(main())
    assert len(notes) == 20_000
    assert json.loads(notes[-1]) == {"number": 19_999}


def test_a_thread_that_reports_on_does_not_spoil_the_result() -> None:
    """Nothing follows the result on its way."""
    assert value_of(run(task("leave_a_reporting_thread", takes_context=True))) == "done"


def wait_until_blocked(pid: int) -> None:
    """Wait, without giving the loop a turn, until a process sleeps each time it is looked at."""
    deadline = time.monotonic() + 10
    seen = 0
    while seen < 200:
        assert time.monotonic() < deadline, "the process goes on"
        seen = seen + 1 if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S" else 0


def test_a_stop_tears_no_note_apart(tmp_path: Path) -> None:
    """Tasks that are stopped in the middle of a write, since nobody reads: each can still give its result. So can
    one whose thread writes."""

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


def test_a_stop_can_be_held_back_for_a_piece_of_work(tmp_path: Path) -> None:
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


def test_what_an_attempt_used_is_told() -> None:
    """Processor and wall time, memory and exit, of a success."""
    account = run(task("burn", 0.3)).usage
    assert account is not None
    assert 0.25 < account.cpu_seconds < 5
    assert account.wall_seconds > 0.25
    assert account.peak_rss_bytes is not None
    assert 4 << 20 < account.peak_rss_bytes < 1 << 30
    assert (account.exit_status, account.signal) == (0, None)


def test_peak_memory_is_that_of_this_attempt() -> None:
    """Of one that takes 150 MiB about so much more than of the one before, and of the one after.

    The kernel counts for a child at least what its parent had when it was started: here the tests' own peak.
    """
    most = 150 + (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)

    async def main() -> None:
        async with executor() as running:
            peaks = []
            for mebibytes in (1, most, 1):
                account = (await outcome_of(running, task("allocate", mebibytes))).usage
                assert account is not None
                assert account.peak_rss_bytes is not None
                peaks.append(account.peak_rss_bytes)
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
def test_accounts_stand_in_errors(
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


def test_what_a_task_prints_is_kept_apart_from_its_result() -> None:
    """Both streams, whole if they are short."""
    outcome = run(task("shout", "hello"))
    assert value_of(outcome) == "said"
    assert outcome.stdout is not None
    assert outcome.stderr is not None
    assert (outcome.stdout.head + outcome.stdout.tail).startswith(b"hello\n")
    assert not outcome.is_result_on_stdout


def test_of_a_flood_the_beginning_and_the_end_are_kept() -> None:
    """8 MiB on each stream, 64 KiB of each kept."""
    outcome = run(task("flood", 8), grace=timedelta(seconds=1))
    for said in (outcome.stdout, outcome.stderr):
        assert said is not None
        assert said.total == 8 << 20
        assert (len(said.head), len(said.tail)) == (16 << 10, 48 << 10)


def test_the_stdout_of_a_foreign_executor_is_its_result() -> None:
    """It is marked so, because a result is not for the log."""
    outcome = run_foreign(say='{"ok": true, "return": 5}')
    assert outcome.is_result_on_stdout


def test_a_broken_note_spoils_the_result_not_the_worker() -> None:
    """A note that announces more than 64 KiB is no note: what comes is not a frame."""
    received = Frame(100, lambda: None)
    received.feed(NOTE_MAGIC + (1 << 20).to_bytes(4, "big") + frame(b"{}"))
    with pytest.raises(ValueError, match="something other than a frame"):
        received.body()
