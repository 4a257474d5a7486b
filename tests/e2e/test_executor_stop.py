"""Ending attempts: timeouts, cancels, shutdowns, and processes that do not want to end."""

import asyncio
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.executors.per_task.attempt import AttemptState
from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.model import Outcome, StopReason
from tests.support.executing import ended, error_of, executor, is_alive, pid_in, run, task, until, value_of

pytestmark = pytest.mark.usefixtures("each_mode")


def stop_while_it_runs(
    what: str, path: Path, *args: Any, reason: StopReason = StopReason.CANCELLED, **changes: Any
) -> Outcome:
    """Start a task, wait until it has written its pid, stop it, and check that its process is gone.

    It has 30 s for its end, if `changes` say nothing else: a machine may be busy.
    """

    async def main() -> Outcome:
        async with executor(**{"grace": timedelta(seconds=30), **changes}) as running:
            attempt = await running.start(task(what, str(path), *args))
            pid = await pid_in(path)
            attempt.stop(reason)
            outcome = await ended(attempt)
            assert attempt.state is AttemptState.ENDED
            assert not is_alive(pid)
            return outcome

    return asyncio.run(main())


def test_timeout_of_the_task(tmp_path: Path) -> None:
    """TERM at the task's own timeout; recorded as timeout; the place in the code is on stderr."""
    began = time.monotonic()
    error = error_of(run(task("sleep", str(tmp_path / "pid"), timeout_seconds=1)))
    assert 1 <= time.monotonic() - began < 30
    assert error.kind == "timeout"
    assert "1 seconds" in error.message
    assert "time.sleep(600)" in (error.stderr_tail or "")


def test_cap_of_the_worker_is_shorter_than_the_tasks_timeout(tmp_path: Path) -> None:
    """Min(task timeout, exec_timeout); a task timeout of 0 means the cap alone."""
    for own in (60, 0):
        what = task("sleep", str(tmp_path / "pid"), timeout_seconds=own)
        assert error_of(run(what, exec_timeout=timedelta(seconds=0.5))).kind == "timeout"


@pytest.mark.parametrize("what", ["ignore_term", "hold_the_lock"])
def test_task_that_ignores_sigterm_is_killed_after_the_grace(what: str, tmp_path: Path) -> None:
    """SIGTERM ignored, or a C call that holds the GIL: SIGKILL after the grace."""
    began = time.monotonic()
    outcome = stop_while_it_runs(what, tmp_path / "pid", grace=timedelta(seconds=0.3))
    assert error_of(outcome).kind == "cancelled"
    assert time.monotonic() - began < 5


def test_frozen_task_times_out_and_dies(tmp_path: Path) -> None:
    """SIGSTOP of the executor: the timeout fires, and the stopped process is woken to die."""
    path, farewell = tmp_path / "pid", tmp_path / "farewell"
    error = error_of(run(task("stop_myself", str(path), str(farewell), timeout_seconds=1)))
    assert error.kind == "timeout"
    assert farewell.read_text() == "bye"
    assert not is_alive(int(path.read_text()))


@pytest.mark.parametrize("reason", list(StopReason))
def test_outcome_names_the_reason_of_the_stop(reason: StopReason, tmp_path: Path) -> None:
    """By the kind the worker decides what to store, and what to give back or drop."""
    assert error_of(stop_while_it_runs("sleep", tmp_path / "pid", reason=reason)).kind == reason.value


@pytest.mark.parametrize("what", ["sleep_and_clean_up", "sleep_async"])
def test_finally_blocks_run_within_the_grace(what: str, tmp_path: Path) -> None:
    """On SIGTERM the task, sync or async, may clean up."""
    farewell = tmp_path / "farewell"
    assert error_of(stop_while_it_runs(what, tmp_path / "pid", str(farewell))).kind == "cancelled"
    assert farewell.read_text() == "bye"


def test_output_of_a_stopped_task_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what was in a buffer: it shows how far a task came that hangs."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    outcome = stop_while_it_runs("say_and_sleep", tmp_path / "pid", "so far")
    assert outcome.stdout is not None
    assert b"so far" in outcome.stdout.head + outcome.stdout.tail


def test_result_that_comes_before_the_end_counts(tmp_path: Path) -> None:
    """A task that finishes well although it was asked to stop is a success."""
    assert value_of(stop_while_it_runs("finish_on_term", tmp_path / "pid")) == "finished in time"


def test_error_that_the_stop_caused_is_recorded_as_the_stop(tmp_path: Path) -> None:
    """The kind is the stop's; what the task raised is kept with it."""
    error = error_of(stop_while_it_runs("fail_on_term", tmp_path / "pid"))
    assert (error.kind, error.exception_class) == ("cancelled", "ValueError")
    assert error.traceback is not None


def test_stop_right_after_the_start(tmp_path: Path) -> None:
    """Whether or not there is a process yet, and whether or not it leads its group: it ends as what stopped it."""

    async def killed_as_soon_as_it_is_there(running: PerTaskExecutor) -> Outcome:
        attempt = await running.start(task("sleep", str(tmp_path / "killed")))
        await until(lambda: attempt.state is not AttemptState.STARTING, "there is a process")
        attempt.kill()
        return await ended(attempt)

    async def main() -> None:
        async with executor() as running:
            for turns in (0, 1, 2, 5, 20):
                attempt = await running.start(task("sleep", str(tmp_path / f"{turns}")))
                for _ in range(turns):
                    await asyncio.sleep(0)
                attempt.stop(StopReason.CANCELLED)
                assert error_of(await ended(attempt)).kind == "cancelled"
            for _ in range(10):
                assert error_of(await killed_as_soon_as_it_is_there(running)).kind == "shutdown"

    asyncio.run(main())


def test_first_reason_stands_and_late_stops_do_nothing(tmp_path: Path) -> None:
    """stop is idempotent, also when the attempt has ended."""

    async def main() -> None:
        path = tmp_path / "pid"
        async with executor() as running:
            attempt = await running.start(task("sleep", str(path)))
            await pid_in(path)
            attempt.stop(StopReason.CANCELLED)
            attempt.stop(StopReason.SHUTDOWN)
            assert error_of(await ended(attempt)).kind == "cancelled"
            attempt.stop(StopReason.LOST)
            attempt.kill()
            assert error_of(await ended(attempt)).kind == "cancelled"

    asyncio.run(main())


def test_kill_leaves_out_the_grace(tmp_path: Path) -> None:
    """After a second signal the worker waits for no task."""

    async def main() -> None:
        path = tmp_path / "pid"
        async with executor(grace=timedelta(hours=1)) as running:
            attempt = await running.start(task("ignore_term", str(path)))
            await pid_in(path)
            attempt.stop(StopReason.SHUTDOWN)
            assert attempt.state is AttemptState.TERMINATING
            attempt.kill()
            assert error_of(await ended(attempt, seconds=5)).kind == "shutdown"

    asyncio.run(main())


def test_cancelled_wait_changes_nothing(tmp_path: Path) -> None:
    """Cancelling wait() leaves the child alone; the outcome can still be had."""

    async def main() -> None:
        path = tmp_path / "pid"
        async with executor() as running:
            attempt = await running.start(task("finish_on_term", str(path)))
            waiter = asyncio.ensure_future(attempt.wait())
            pid = await pid_in(path)
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert is_alive(pid)
            attempt.stop(StopReason.SHUTDOWN)
            assert value_of(await ended(attempt)) == "finished in time"

    asyncio.run(main())


def test_result_of_a_process_that_does_not_end() -> None:
    """A thread left behind holds the process, not the slot: after a grace it is stopped, and the result stays."""
    outcome = run(task("leave_a_thread"), grace=timedelta(seconds=0.2))
    assert value_of(outcome) == "done"
    assert "SIGTERM" in outcome.warnings[0]


def test_signal_from_another_process_is_a_crash(tmp_path: Path) -> None:
    """SIGTERM that the worker did not send: crashed by that signal, not cancelled."""

    async def main() -> None:
        path = tmp_path / "pid"
        async with executor() as running:
            attempt = await running.start(task("sleep", str(path)))
            os.kill(await pid_in(path), signal.SIGTERM)
            error = error_of(await ended(attempt))
            assert (error.kind, error.crash_class, error.signal) == ("crashed", "signal", "SIGTERM")

    asyncio.run(main())


def test_closing_the_executor_kills_what_runs(tmp_path: Path) -> None:
    """close() leaves no process, and every wait() gets its outcome."""

    async def main() -> None:
        path = tmp_path / "pid"
        async with executor(grace=timedelta(hours=1)) as running:
            attempt = await running.start(task("ignore_term", str(path)))
            pid = await pid_in(path)
        assert not is_alive(pid)
        assert error_of(await ended(attempt)).kind == "shutdown"

    asyncio.run(main())


@pytest.mark.parametrize("each_mode", ["spawn"], indirect=True)
def test_spawn_needs_no_pidfds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pidfd_open is missing or forbidden, a thread waits for each child instead."""

    def forbidden(pid: int) -> int:
        raise PermissionError(1, f"no pidfd for {pid}")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    assert value_of(run(task("add", 1, 2))) == 3
    assert error_of(stop_while_it_runs("sleep", tmp_path / "pid")).kind == "cancelled"
