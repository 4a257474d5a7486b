"""What one task can do to others in the pool: nothing lasts, counts twice, or is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from reproq_listen.model import ForkserverTimings, StopReason
from tests.support.executing import DIES_AFTER_REAPING, error_of, is_alive, until
from tests.support.pooling import MODULE, Running, all_of, in_loop, is_given_back, learn, pool, run, task, value


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


async def first_pid(path: Path) -> int:
    await until(lambda: lines(path), f"a line in {path}")
    return pids_in(path)[0]


def test_tasks_behind_a_long_task_move_to_another_child(tmp_path: Path) -> None:
    """The path was short, so all are sent in one batch. One takes long, and the others do not wait for it."""
    log = str(tmp_path / "log")

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "note", "/dev/null")
            began = time.monotonic()
            long = Running(p, task("note", log, 3))
            others = [Running(p, task("note", log)) for _ in range(30)]
            for other in others:
                assert (await other.wait()).error is None
            assert time.monotonic() - began < 2
            assert not long.is_over
            assert (await long.wait()).error is None
        assert lines(Path(log)) == 31

    in_loop(main())


def test_tasks_that_no_child_can_start_are_given_back(tmp_path: Path) -> None:
    """With one child and a long task, the rest is given back within about a tenth of a second: exactly those that did
    not start, and none of them runs here later."""
    log = tmp_path / "log"

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "note", "/dev/null")
            began = time.monotonic()
            running = [Running(p, task("note", str(log), seconds)) for seconds in (0, 0, 2, *[0] * 30)]
            for one in running[3:]:
                assert error_of(await one.wait()).kind == "shutdown"
            assert time.monotonic() - began < 1.5
            assert p.room() == 0
            for one in running[:3]:
                assert (await one.wait()).error is None
            assert lines(log) == 3
            assert await value(p, "echo", 1) == 1

    in_loop(main())


def test_taking_back_is_exact_at_any_moment(tmp_path: Path) -> None:
    """Tasks are stopped at odd moments while children run through batches: each has one end, and has run exactly if
    that end is a result."""

    async def main() -> None:
        async with pool(3) as p:
            await learn(p, "note", "/dev/null")
            for turn in range(20):
                log = tmp_path / f"log{turn}"
                running = [Running(p, task("note", str(log))) for _ in range(100)]
                await asyncio.sleep(0.001 * (turn % 7))
                for one in running[turn::3]:
                    one.attempt.stop(StopReason.CANCELLED)
                outcomes = [await one.wait() for one in running]
                good = sum(outcome.error is None for outcome in outcomes)
                kinds = Counter(outcome.error.kind for outcome in outcomes if outcome.error)
                stopped = kinds.pop("cancelled", 0) + kinds.pop("shutdown", 0)  # given back, on a busy machine
                assert kinds == {}
                assert good + stopped == 100
                assert good <= lines(log) <= good + 3  # at most one that each child ran when it was stopped

    in_loop(main())


@pytest.mark.parametrize("place", [0, 7, 24])
def test_killed_child_costs_its_own_task_only(tmp_path: Path, place: int) -> None:
    """In the middle of a batch: tasks before it have their results, tasks after it run elsewhere, once."""
    log = tmp_path / "log"

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "note_or_die", "/dev/null", False)
            outcomes = await all_of(p, [task("note_or_die", str(log), number == place) for number in range(25)])
            for number, outcome in enumerate(outcomes):
                if number == place:
                    error = error_of(outcome)
                    assert (error.kind, error.crash_class, error.signal) == ("crashed", "signal", "SIGKILL")
                else:
                    assert outcome.error is None
            assert lines(log) == 25

    in_loop(main())


def test_child_killed_from_outside_between_tasks_is_replaced() -> None:
    """No task suffers."""

    async def main() -> None:
        async with pool(1) as p:
            former = await value(p, "pid")
            os.kill(former, signal.SIGKILL)
            assert await value(p, "pid") != former

    in_loop(main())


def test_stopped_child_costs_its_own_task_only(tmp_path: Path) -> None:
    """A process is stopped by a signal, with tasks behind it: they run elsewhere, and it ends at its timeout."""

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "pid", times=5)
            stopped = Running(p, task("stop_itself", timeout_seconds=1))
            others = await all_of(p, [task("pid") for _ in range(20)])
            assert all(outcome.error is None for outcome in others)
            error = error_of(await stopped.wait())
            assert (error.kind, error.crash_class) == ("timeout", "timeout")

    in_loop(main())


def test_timeout_ends_one_task_of_a_batch(tmp_path: Path) -> None:
    """The limit counts from the task's own start. Children in sessions of their own are killed too."""
    log = tmp_path / "log"

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "family", "/dev/null", 0, times=3)
            began = time.monotonic()
            late = Running(p, task("family", str(log), 30, timeout_seconds=1))
            others = await all_of(p, [task("pid") for _ in range(20)])
            assert all(outcome.error is None for outcome in others)
            error = error_of(await late.wait())
            assert error.kind == "timeout"
            assert 1 <= time.monotonic() - began < 4
            pids = pids_in(log)
            await until(lambda: not any(is_alive(pid) for pid in pids), "the family is gone")

    in_loop(main())


def test_task_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    """SIGTERM is ignored, SIGKILL is not; a result that comes within the grace counts."""

    async def main() -> None:
        async with pool(1) as p:
            log = tmp_path / "log"
            stubborn = Running(p, task("resist", str(log), 30))
            pid = await first_pid(log)
            began = time.monotonic()
            stubborn.attempt.stop(StopReason.CANCELLED)
            error = error_of(await stubborn.wait())
            assert (error.kind, error.signal) == ("cancelled", "SIGKILL")
            assert 1 <= time.monotonic() - began < 5
            assert not is_alive(pid)
            other = tmp_path / "other"
            quick = Running(p, task("resist", str(other), 0.5))
            await first_pid(other)
            quick.attempt.stop(StopReason.CANCELLED)
            assert (await quick.wait()).error is None
            assert await value(p, "echo", 1) == 1

    in_loop(main())


def test_stop_of_a_waiting_task_touches_no_other() -> None:
    """It ends at once, of its own kind."""

    async def main() -> None:
        async with pool(1) as p:
            first = Running(p, task("note", "/dev/null", 0.5))
            second = Running(p, task("note", "/dev/null", 0.5))
            second.attempt.stop(StopReason.CANCELLED)
            assert error_of(await second.wait(0.2)).kind == "cancelled"
            assert (await first.wait()).error is None

    in_loop(main())


@pytest.mark.parametrize("text", ["x" * 40, "\0" * 60, "\1" + "\xff" * 30, "RQF1" * 20])
def test_child_that_writes_garbage_costs_its_own_task_only(text: str) -> None:
    """Whatever comes on the result pipe, the worker only ends that child."""

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "echo", 1)
            bad = Running(p, task("garble", text, timeout_seconds=2))
            outcomes = await all_of(p, [task("echo", number) for number in range(20)])
            assert [outcome.result for outcome in outcomes] == [str(number) for number in range(20)]
            assert error_of(await bad.wait()).kind in ("crashed", "timeout")
            assert await value(p, "echo", 1) == 1

    in_loop(main())


def test_results_before_the_garbage_count() -> None:
    """Also if the worker reads both at once."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "garble", "")
            *good, bad = [Running(p, task("garble", text)) for text in [""] * 20 + ["x" * 40]]
            assert [(await one.wait()).error for one in good] == [None] * 20
            assert error_of(await bad.wait()).kind == "crashed"

    in_loop(main())


def test_child_that_steals_tokens_cannot_make_a_task_run_twice(tmp_path: Path) -> None:
    """A task whose token it took counts as started, and ends as crashed: never lost, never run twice."""
    log = tmp_path / "log"

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "note", "/dev/null")
            thief = Running(p, task("swallow_tokens"))
            others = [Running(p, task("note", str(log))) for _ in range(10)]
            outcomes = [await one.wait() for one in (thief, *others)]
            good = sum(outcome.error is None for outcome in outcomes)
            assert {outcome.error.kind for outcome in outcomes if outcome.error} == {"crashed"}
            assert lines(log) == good

    in_loop(main())


def test_task_that_closes_everything_gets_no_channel_in_place_of_its_file(tmp_path: Path) -> None:
    """Its result has no channel any more, so it counts as crashed. Its file holds what it wrote."""
    file = tmp_path / "file"

    async def main() -> None:
        async with pool(1) as p:
            assert error_of(await run(p, "close_all", str(file))).kind == "crashed"
            assert file.read_text() == "mine"
            assert await value(p, "echo", 1) == 1

    in_loop(main())


@pytest.mark.parametrize("status", [0, 3])
def test_task_that_ends_its_process_has_crashed(status: int) -> None:
    """Also with status 0: there is no result."""

    async def main() -> None:
        async with pool(1) as p:
            error = error_of(await run(p, "leave", status))
            assert (error.kind, error.crash_class, error.exit_status) == ("crashed", "exit", status)

    in_loop(main())


def test_quarantined_task_runs_alone_in_a_batch(tmp_path: Path) -> None:
    """A task that lost its lease twice takes no other with it."""
    log = str(tmp_path / "log")

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "note_or_die", "/dev/null", False)
            tasks = [task("note_or_die", log, False) for _ in range(10)]
            tasks.insert(5, task("note_or_die", log, True, lost_count=2))
            outcomes = await all_of(p, tasks)
            assert [outcome.error is None for outcome in outcomes] == [number != 5 for number in range(11)]

    in_loop(main())


def test_new_forkserver_serves_the_tasks_that_start_after_it(tmp_path: Path) -> None:
    """SIGHUP: a running task ends in its old child, later tasks run in new ones."""

    async def main() -> None:
        async with pool(1) as p:
            former = await value(p, "pid")
            log = tmp_path / "log"
            running = Running(p, task("note", str(log), 0.5))
            await first_pid(log)
            await p.reload()
            outcome = await running.wait()
            assert outcome.result == str(former)
            assert await value(p, "pid") != former

    in_loop(main())


def test_children_that_are_replaced_before_their_first_task_have_not_failed() -> None:
    """However often the code is reloaded: no warning, and no pause."""

    async def main() -> None:
        async with pool(2) as p:
            for _ in range(4):
                former = set(p.pids)
                await p.reload()
                await until(lambda: former.isdisjoint(p.pids), "the former children are gone")  # noqa: B023
            assert p.room() > 0
            assert await value(p, "echo", 1) == 1

    in_loop(main())


def test_child_waits_for_its_next_task_without_limit() -> None:
    """Also where the application has given all sockets a time limit."""

    async def main() -> None:
        async with pool(1, preload=(MODULE, "tests.apps.pool_impatient")) as p:
            former = await value(p, "pid")
            await asyncio.sleep(0.5)  # five times its limit
            assert await value(p, "pid") == former
            assert await value(p, "is_patient"), "a look at what the imports left open has changed it"

    in_loop(main())


def test_pool_without_children_warns_and_recovers(tmp_path: Path) -> None:
    """A killed forkserver is started again; tasks that waited meanwhile run."""
    warnings: list[str] = []

    async def main() -> None:
        async with pool(2, warnings, max_tasks_per_child=1) as p:
            await run(p, "pid")
            os.kill(p.forkserver_pid or 0, signal.SIGKILL)
            outcomes = await all_of(p, [task("pid") for _ in range(6)])
            assert all(outcome.error is None for outcome in outcomes)
        assert any("forkserver" in warning for warning in warnings)

    in_loop(main())


def test_pool_children_whose_limits_cannot_be_set_fail_no_task() -> None:
    """They end before their first task, which is given back; the pauses before new ones grow."""
    pauses: list[str] = []

    async def main() -> None:
        async with pool(4, pauses, memory_bytes=1 << 30, preload=(MODULE, "tests.apps.pool_limitless")) as p:
            outcomes = [await one.wait() for one in [Running(p, task("pid")) for _ in range(8)]]
            assert all(map(is_given_back, outcomes))
            await until(lambda: len(pauses) > 2, "there are pauses")
            before = len(pauses)
            await asyncio.sleep(1)
            assert len(pauses) - before < 4

    in_loop(main())


def test_pool_whose_forkserver_does_not_answer_can_be_closed() -> None:
    """Children that are being forked are not waited for, and none is left over."""
    timings = ForkserverTimings(close_seconds=0.3)

    async def main() -> None:
        async with pool(2, [], forkserver_timings=timings) as p:
            stuck = p.forkserver_pid or 0
            os.kill(stuck, signal.SIGSTOP)
            for pid in p.pids:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: not p.pids, "the pool asks for others")
            async with asyncio.timeout(10):
                await p.close()
            assert not is_alive(stuck)

    in_loop(main())


def test_forkserver_that_dies_before_it_reports_an_exit_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child that it has reaped is gone, and there are new ones."""
    warnings: list[str] = []
    died = tmp_path / "died"
    (tmp_path / "mortal.py").write_text(DIES_AFTER_REAPING.format(died=str(died)))
    monkeypatch.chdir(tmp_path)  # where modules are found

    async def main() -> None:
        async with pool(2, warnings, max_tasks_per_child=1, preload=("mortal",)) as p:
            outcomes = await all_of(p, [task("pid") for _ in range(6)])
            assert all(outcome.error is None for outcome in outcomes)
            assert died.exists()
        assert any("forkserver" in warning for warning in warnings)

    in_loop(main())
