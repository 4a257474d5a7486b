"""What a task gets, gives and leaves behind in a child that serves many."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.errors import SettingError
from reproq_listen.executors.pool import executor as pool_module
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.model import ExecutorSettings
from tests.apps import lasting_tasks
from tests.support.executing import error_of, is_alive, until
from tests.support.pooling import MODULE, Running, all_of, in_loop, learn, pool, run, task, value


def test_values_come_back_as_they_are_and_what_cannot_be_kept_is_refused() -> None:
    """Plain values, text that needs a second look, and a megabyte; NUL, NaN, an object, too much: invalid_result."""

    async def main() -> None:
        async with pool() as p:
            for good in (None, 1, 'ä\n"', [1, {"a": None}], 1.5, "x" * 200_000, "\\u0000 as text", 10**400):
                assert await value(p, "echo", good) == good
            assert await value(p, "large", 900_000) == "x" * 900_000
            for name, *arguments in (("echo", "\0"), ("large", 2 << 20), ("surrogate",), ("nan",)):
                assert error_of(await run(p, name, *arguments)).kind == "invalid_result"

    in_loop(main())


def test_a_failure_says_where_and_its_neighbours_succeed() -> None:
    """The traceback begins in the task; the child goes on."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "accept", 1)
            outcomes = await all_of(p, [task("accept", 1), task("accept", -1), task("accept", 2)])
            assert [outcome.error is None for outcome in outcomes] == [True, False, True]
            error = error_of(outcomes[1])
            assert (error.kind, error.exception_class) == ("app_error", "ValueError")
            assert str(error.traceback).count("File ") == 1
            assert len(p.pids) == 1

    in_loop(main())


def test_refusals_need_no_child() -> None:
    """The path is checked before anything is sent, and again by the child."""

    async def main() -> None:
        async with pool() as p:
            outcome = await run(p, "echo", 1, task_path="os.getcwd")
            assert error_of(outcome).kind == "security_violation"
            assert outcome.usage is None
            outcome = await run(p, "os.getcwd")
            assert error_of(outcome).kind == "security_violation"

    in_loop(main())


def test_what_is_printed_stands_beside_the_result_of_its_own_task() -> None:
    """Each task's lines are its own, also in one frame; what comes past Python's streams is kept too."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "say", "-")
            outcomes = await all_of(p, [task("say", f"line {number}") for number in range(20)])
            for number, outcome in enumerate(outcomes):
                assert outcome.result == "null"
                assert outcome.stdout is not None
                assert outcome.stderr is not None
                assert outcome.stdout.head == outcome.stderr.head == f"line {number}\n".encode()
            outcome = await run(p, "shout", "from C")
            assert outcome.stderr is not None
            assert b"from C" in outcome.stderr.head
            outcome = await run(p, "say_at_length", 300_000)
            assert outcome.stdout is not None
            assert outcome.stdout.total == 300_010
            assert outcome.stdout.head.startswith(b"begin\n")
            assert outcome.stdout.tail.endswith(b"end\n")
            outcome = await run(p, "say_in_a_copy", "from a copy")
            assert outcome.stderr is not None
            assert outcome.stderr.head == b"from a copy\n"

    in_loop(main())


@pytest.mark.parametrize(("name", "unbuffered"), [("log", ""), ("log", "1"), ("log_bytes", "")])
def test_what_is_logged_stands_beside_the_result_of_its_own_task(
    monkeypatch: pytest.MonkeyPatch, name: str, unbuffered: str
) -> None:
    """Also when the handlers have been made while the application was imported, before there was any child."""
    module = "tests.apps.pool_logging"
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)

    async def main() -> None:
        async with pool(2, allowed_task_modules=(module,), preload=(module,)) as p:
            await run(p, name, "-", module=module)
            outcomes = await all_of(p, [task(name, f"line {number}", module=module) for number in range(300)])
            for number, outcome in enumerate(outcomes):
                assert outcome.stdout is not None
                assert outcome.stderr is not None
                assert outcome.stdout.head == outcome.stderr.head == f"line {number}\n".encode()

    in_loop(main())


def test_what_programs_print_stands_beside_the_result_of_its_own_task() -> None:
    """Also in a crowd, once one task of that path was heard; and never beside one of another path."""

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "shell", "echo -", times=5)
            await learn(p, "echo", 1)
            tasks = [[task("shell", f"echo line {number}"), task("echo", 1)] for number in range(100)]
            outcomes = await all_of(p, [one for pair in tasks for one in pair])
            for number, outcome in enumerate(outcomes[::2]):
                assert outcome.stderr is not None
                assert outcome.stderr.head == f"line {number}\n".encode()
            assert all(outcome.stderr is not None and not outcome.stderr.total for outcome in outcomes[1::2])

    in_loop(main())


def test_a_program_that_prints_much_is_told_in_full_size() -> None:
    """Its beginning, its end, and how much it was."""

    async def main() -> None:
        async with pool(1) as p:
            outcome = await run(p, "shell", "echo begin; head -c 999990 /dev/zero; echo end")
            assert outcome.stderr is not None
            assert outcome.stderr.total == 1_000_000
            assert outcome.stderr.head.startswith(b"begin\n")
            assert outcome.stderr.tail.endswith(b"end\n")

    in_loop(main())


def test_garbage_that_speaks_between_two_tasks_costs_nobody_anything() -> None:
    """The collector finds what a task has left whenever it likes, also when no task runs. All have succeeded."""

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "litter_heap", 0)
            outcomes = await all_of(p, [task("litter_heap", number % 7) for number in range(4000)])
            assert [outcome.error for outcome in outcomes] == [None] * 4000

    in_loop(main())


def test_a_collector_that_always_speaks_costs_nobody_anything() -> None:
    """Not even what is written of a task is torn apart, or waits for itself."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "echo", 1)
            await value(p, "collect_aloud")
            outcomes = await all_of(p, [task("echo", number) for number in range(1000)])
            assert [outcome.result for outcome in outcomes] == [str(number) for number in range(1000)]

    in_loop(main())


def test_what_a_task_says_of_itself_arrives_while_it_runs() -> None:
    """Progress goes to whoever was named for it, with the task it is about."""
    noted: list[Any] = []

    async def main() -> None:
        async with pool() as p:
            p.noted = lambda what, note: noted.append((what.result_id, json.loads(note)))
            what = task("progress", takes_context=True)
            (outcome,) = await all_of(p, [what])
            assert outcome.error is None
            assert noted == [(what.result_id, {"progress": {"fraction": 0.5, "message": "half"}})]

    in_loop(main())


def test_every_outcome_has_its_account() -> None:
    """Wall and CPU seconds of the task alone."""

    async def main() -> None:
        async with pool(1) as p:
            outcome = await run(p, "note", "/dev/null", 0.2)
            assert outcome.usage is not None
            assert 0.2 <= outcome.usage.wall_seconds < 5
            assert outcome.usage.cpu_seconds < 0.2
            assert outcome.usage.peak_rss_bytes is None

    in_loop(main())


def test_a_task_finds_the_process_as_it_was(tmp_path: Path) -> None:
    """Folder, umask, environment, signals, timers and streams that a task has changed are restored for the next."""

    async def main() -> None:
        async with pool(1) as p:
            before = await value(p, "look")
            assert await value(p, "litter") == before["pid"]
            assert await value(p, "look") == before
            assert before["umask"] == 0o077
            assert before["stdout"]

    in_loop(main())


def test_a_task_finds_the_standard_streams_where_they_were(tmp_path: Path) -> None:
    """Whatever the one before it has closed or led into a file of its own: nobody else's output goes there."""
    file = tmp_path / "file"

    async def main() -> None:
        async with pool(1) as p:
            former = await value(p, "lead_elsewhere", str(file))
            outcome = await run(p, "shell", "cat; echo secret")
            assert outcome.stderr is not None
            assert (outcome.result, outcome.stderr.head) == ("0", b"secret\n")
            assert await value(p, "lead_elsewhere", str(file)) == former
            assert file.read_text() == ""

    in_loop(main())


@pytest.mark.parametrize("name", ["close_stdout", "detach_stdout"])
def test_a_stream_that_a_task_has_closed_is_there_for_the_next(name: str) -> None:
    """Nobody has failed, and the child goes on."""

    async def main() -> None:
        async with pool(1) as p:
            former = await value(p, name)
            outcome = await run(p, "say", "all is well")
            assert outcome.stdout is not None
            assert outcome.stdout.head == b"all is well\n"
            assert await value(p, name) == former
            outcome = await run(p, "detach_stdout")
            assert outcome.stdout is not None
            assert outcome.stdout.head == b"detached"

    in_loop(main())


@pytest.mark.parametrize("name", ["leave_thread", "leave_process", "leave_background"])
def test_a_child_that_cannot_be_made_clean_is_replaced(name: str) -> None:
    """The task that left something succeeds; the next one runs elsewhere, and what was left is gone."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "pid", times=3)
            former = await value(p, name)
            assert await value(p, "pid") != former
            await until(lambda: not is_alive(former), "the child is gone")

    in_loop(main())


def test_children_are_replaced_by_count() -> None:
    """After so many tasks, never more, also when they come in crowds."""

    async def main() -> None:
        async with pool(1, max_tasks_per_child=5) as p:
            await learn(p, "pid", times=5)
            outcomes = await all_of(p, [task("pid") for _ in range(23)])
            pids = [outcome.result for outcome in outcomes]
            assert all(pids)
            assert max(pids.count(pid) for pid in pids) <= 5

    in_loop(main())


@pytest.mark.parametrize("most", [0, 1])
def test_what_a_task_has_left_open_is_written_when_its_child_ends(tmp_path: Path, most: int) -> None:
    """With the pool, or before, when the child is replaced."""
    modules = ("tests.apps.lasting_tasks",)

    async def main() -> None:
        async with pool(1, max_tasks_per_child=most, preload=modules, allowed_task_modules=modules) as p:
            outcome = await Running(p, lasting_tasks.task(tmp_path)).wait()
            assert outcome.error is None
            if most:
                await until((tmp_path / "finalized").exists, "the child is replaced")
                await until(lambda: lasting_tasks.is_written(tmp_path), "it has written")

    in_loop(main())
    assert lasting_tasks.is_written(tmp_path)


def test_children_are_replaced_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tasks: one that is running ends where it began."""
    monkeypatch.setattr(pool_module, "_MAX_AGE", timedelta(seconds=1))

    async def main() -> None:
        async with pool(1) as p:
            first = await value(p, "pid")
            assert await value(p, "note", "/dev/null", 1.2) == first
            assert await value(p, "pid") != first

    in_loop(main())


def test_a_child_that_has_grown_is_replaced_between_tasks() -> None:
    """What was behind the growing task in its frame runs in the next child; nothing is lost."""

    async def main() -> None:
        async with pool(1, max_memory_per_child_bytes=120 << 20) as p:
            await learn(p, "grow", 0)
            outcomes = await all_of(p, [task("grow", size) for size in (0, 0, 200, 0, 0)])
            pids = [outcome.result for outcome in outcomes]
            assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]

    in_loop(main())


@pytest.mark.parametrize("size", [1 << 20, 64])
def test_a_child_that_has_run_out_of_memory_is_replaced(size: int) -> None:
    """The task that took it all has failed for want of memory; those after it have as much as ever."""

    async def main() -> None:
        async with pool(1, memory_bytes=300 << 20) as p:
            error = error_of(await run(p, "hoard", size))
            assert (error.exception_class, error.crash_class) == ("MemoryError", "oom")
            for _ in range(3):
                assert await value(p, "large", 900_000) == "x" * 900_000

    in_loop(main())


def test_a_copy_of_the_child_that_a_task_forked_does_not_answer() -> None:
    """Only the process that the pool forked speaks for its tasks."""

    async def main() -> None:
        async with pool(1) as p:
            pid = await value(p, "fork_back")
            assert pid == await value(p, "pid")

    in_loop(main())


def test_children_share_no_descriptors() -> None:
    """A child of many siblings has its own channels and no more."""

    async def main() -> None:
        async with pool(4) as p:
            await all_of(p, [task("note", "/dev/null", 0.3) for _ in range(4)])
            assert len(p.pids) == 4
            assert await value(p, "count_open") < 16

    in_loop(main())


def test_nothing_is_left_when_the_pool_closes() -> None:
    """Children, template and guard end; descriptors are closed."""

    async def main() -> list[int]:
        async with pool(3) as p:
            await all_of(p, [task("note", "/dev/null", 0.1) for _ in range(3)])
            return p.pids

    before = len(os.listdir("/proc/self/fd"))
    pids = in_loop(main())
    assert len(pids) == 3
    assert not any(is_alive(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == before


def test_only_our_own_executor_runs_in_the_pool() -> None:
    """Another module cannot serve many tasks: that is said at the start, with the mode that fits."""

    async def main() -> None:
        settings = ExecutorSettings(executor_module="tests.apps.foreign_executor", allowed_task_modules=(MODULE,))
        p = PoolExecutor(settings, 1, lambda _: None)
        with pytest.raises(SettingError, match="fork"):
            await p.open()
        await p.close()

    in_loop(main())
