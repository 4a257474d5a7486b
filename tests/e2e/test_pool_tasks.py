"""What a task gets, returns and leaves behind in a child that serves many."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from reproq_listen.errors import SettingError
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.model import CapturedOutput, ClaimedTask, ExecutorSettings
from tests.apps import lasting_tasks
from tests.support.executing import error_of, is_alive, until
from tests.support.pooling import MODULE, Running, all_of, in_loop, is_given_back, learn, pool, run, task, value


def test_values_come_back_as_they_are_or_are_refused() -> None:
    """Plain values, text that needs a second check, and a megabyte; NUL, NaN, an object, too much: invalid_result."""

    async def main() -> None:
        async with pool() as p:
            for good in (None, 1, 'ä\n"', [1, {"a": None}], 1.5, "x" * 200_000, "\\u0000 as text", 10**400):
                assert await value(p, "echo", good) == good
            assert await value(p, "large", 900_000) == "x" * 900_000
            for name, *arguments in (("echo", "\0"), ("large", 2 << 20), ("surrogate",), ("nan",)):
                assert error_of(await run(p, name, *arguments)).kind == "invalid_result"

    in_loop(main())


def test_failure_has_its_traceback_and_its_neighbours_succeed() -> None:
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


def test_printed_lines_come_with_the_result_of_their_task() -> None:
    """Also in a batch; beginning, end and size of long output."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "say", "-")
            outcomes = await all_of(p, [task("say", f"line {number}") for number in range(20)])
            for number, outcome in enumerate(outcomes):
                assert outcome.result == "null"
                assert outcome.stdout is not None
                assert outcome.stderr is not None
                assert outcome.stdout.head == outcome.stderr.head == f"line {number}\n".encode()
            outcome = await run(p, "say_at_length", 300_000)
            assert outcome.stdout is not None
            assert outcome.stdout.total == 300_010
            assert outcome.stdout.head.startswith(b"begin\n")
            assert outcome.stdout.tail.endswith(b"end\n")

    in_loop(main())


@pytest.mark.parametrize(("name", "unbuffered"), [("log", ""), ("log", "1"), ("log_bytes", "")])
def test_logged_lines_come_with_the_result_of_their_task(
    monkeypatch: pytest.MonkeyPatch, name: str, unbuffered: str
) -> None:
    """Also if the handlers were made while the application was imported, before there was a child."""
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


@pytest.mark.parametrize(("name", "argument"), [("shell", "echo line"), ("shout", "line\n"), ("say_in_a_copy", "line")])
def test_output_past_the_streams_of_python_is_the_childs(name: str, argument: str) -> None:
    """Of programs, of C code, of forked copies: it belongs to no known task, and comes with the child's pid."""
    output: list[tuple[int, CapturedOutput]] = []

    async def main() -> None:
        async with pool(1, output=output) as p:
            pid = await value(p, "pid")
            outcome = await run(p, name, argument)
            assert outcome.error is None
            assert outcome.stdout is not None
            assert outcome.stderr is not None
            assert outcome.stdout.total + outcome.stderr.total == 0
            await run(p, "pid")
            assert output == [(pid, CapturedOutput(b"line\n", b"", 5))]

    in_loop(main())


def test_long_output_past_the_streams_of_python_is_shortened() -> None:
    """Its beginning, its end, and its size."""
    output: list[tuple[int, CapturedOutput]] = []

    async def main() -> None:
        async with pool(1, output=output) as p:
            await run(p, "shell", "echo begin; head -c 999990 /dev/zero; echo end")
            await run(p, "pid")
        assert output[0][1].head.startswith(b"begin\n")
        assert (output[-1][1].head + output[-1][1].tail).endswith(b"end\n")
        assert sum(came.total for _, came in output) == 1_000_000
        assert len(output) <= 2

    in_loop(main())


def test_last_output_of_a_child_that_dies_comes_with_its_task() -> None:
    """What the C library writes when it aborts a process, say: it tells why the task has crashed."""

    async def main() -> None:
        async with pool(1) as p:
            error = error_of(await run(p, "shout_and_die", "double free"))
            assert (error.kind, error.signal, error.stderr_tail) == ("crashed", "SIGKILL", "double free")

    in_loop(main())


def test_destructors_that_print_between_two_tasks_do_no_harm() -> None:
    """The garbage collector may run at any time, also between tasks. All tasks succeed."""

    async def main() -> None:
        async with pool(2) as p:
            await learn(p, "litter_heap", 0)
            outcomes = await all_of(p, [task("litter_heap", number % 7) for number in range(4000)])
            assert [outcome.error for outcome in outcomes] == [None] * 4000

    in_loop(main())


def test_collector_that_always_prints_does_no_harm() -> None:
    """No record is torn apart, and no write waits for itself."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "echo", 1)
            await value(p, "collect_aloud")
            outcomes = await all_of(p, [task("echo", number) for number in range(1000)])
            assert [outcome.result for outcome in outcomes] == [str(number) for number in range(1000)]

    in_loop(main())


def test_metadata_arrives_while_the_task_runs() -> None:
    """With its task."""
    metadata: list[tuple[ClaimedTask, bytes]] = []

    async def main() -> None:
        async with pool(metadata=metadata) as p:
            what = task("progress", takes_context=True)
            (outcome,) = await all_of(p, [what])
            assert outcome.error is None
            ((saved_by, body),) = metadata
            assert saved_by == what
            assert json.loads(body) == {"progress": {"fraction": 0.5, "message": "half"}}

    in_loop(main())


def test_pool_every_outcome_has_its_usage() -> None:
    """Wall and CPU seconds of the task alone."""

    async def main() -> None:
        async with pool(1) as p:
            outcome = await run(p, "note", "/dev/null", 0.2)
            assert outcome.usage is not None
            assert 0.2 <= outcome.usage.wall_seconds < 5
            assert outcome.usage.cpu_seconds < 0.2
            assert outcome.usage.peak_rss_bytes is None

    in_loop(main())


def test_task_finds_the_process_as_it_was(tmp_path: Path) -> None:
    """Folder, umask, environment, signals, timers and streams that a task has changed are restored for the next."""

    async def main() -> None:
        async with pool(1) as p:
            before = await value(p, "look")
            assert await value(p, "litter") == before["pid"]
            assert await value(p, "look") == before
            assert before["umask"] == 0o077
            assert before["stdout"]

    in_loop(main())


def test_task_finds_the_standard_descriptors_as_they_were(tmp_path: Path) -> None:
    """If a task closes them or redirects them to a file of its own, no output of others goes there."""
    file = tmp_path / "file"
    output: list[tuple[int, CapturedOutput]] = []

    async def main() -> None:
        async with pool(1, output=output) as p:
            former = await value(p, "redirect", str(file))
            assert await value(p, "shell", "cat; echo secret") == 0
            assert await value(p, "redirect", str(file)) == former
            assert [(pid, came.head) for pid, came in output] == [(former, b"secret\n")]
            assert file.read_text() == ""

    in_loop(main())


@pytest.mark.parametrize("name", ["leave_thread", "leave_process", "leave_background", "close_stdout", "detach_stdout"])
def test_child_that_cannot_be_reset_is_replaced(name: str) -> None:
    """The task that left something succeeds. The next one runs elsewhere, and what was left is gone."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "pid", times=3)
            former = await value(p, name)
            assert await value(p, "pid") != former
            await until(lambda: not is_alive(former), "the child is gone")

    in_loop(main())


def test_children_are_replaced_by_count() -> None:
    """Exactly at the limit, also if tasks come in batches."""

    async def main() -> None:
        async with pool(1, max_tasks_per_child=5) as p:
            await learn(p, "pid", times=5)
            outcomes = await all_of(p, [task("pid") for _ in range(23)])
            pids = [outcome.result for outcome in outcomes]
            assert all(pids)
            assert max(pids.count(pid) for pid in pids) <= 5

    in_loop(main())


@pytest.mark.parametrize("most", [0, 1])
def test_files_that_a_task_left_open_are_written_when_its_child_ends(tmp_path: Path, most: int) -> None:
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


def test_children_are_replaced_by_age() -> None:
    """Between tasks: a running task ends in the child where it began."""

    async def main() -> None:
        async with pool(1, max_child_age=timedelta(seconds=1)) as p:
            first = await value(p, "pid")
            assert await value(p, "note", "/dev/null", 1.2) == first
            assert await value(p, "pid") != first

    in_loop(main())


def test_child_that_has_grown_is_replaced_between_tasks() -> None:
    """Tasks behind the growing task in its batch run in the next child; none is lost."""

    async def main() -> None:
        async with pool(1, max_memory_per_child_bytes=120 << 20) as p:
            await learn(p, "grow", 0)
            outcomes = await all_of(p, [task("grow", size) for size in (0, 0, 200, 0, 0)])
            pids = [outcome.result for outcome in outcomes]
            assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]

    in_loop(main())


@pytest.mark.parametrize("size", [1 << 20, 64])
def test_child_that_has_run_out_of_memory_is_replaced(size: int) -> None:
    """The task that took it all has failed with `oom`; tasks after it have as much as ever."""

    async def main() -> None:
        async with pool(1, memory_bytes=300 << 20) as p:
            error = error_of(await run(p, "hoard", size))
            assert (error.exception_class, error.crash_class) == ("MemoryError", "oom")
            for _ in range(3):
                assert await value(p, "large", 900_000) == "x" * 900_000

    in_loop(main())


def test_copy_of_the_child_that_a_task_forked_sends_nothing() -> None:
    """Only the process that the pool forked sends results."""

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
    """Children, forkserver and guard end; descriptors are closed."""

    async def main() -> list[int]:
        async with pool(3) as p:
            await all_of(p, [task("note", "/dev/null", 0.1) for _ in range(3)])
            return p.pids

    before = len(os.listdir("/proc/self/fd"))
    pids = in_loop(main())
    assert len(pids) == 3
    assert not any(is_alive(pid) for pid in pids)
    assert len(os.listdir("/proc/self/fd")) == before


def test_pool_only_our_own_executor_runs_in_the_pool() -> None:
    """Another module cannot serve many tasks: an error at the start names the mode that fits."""

    async def main() -> None:
        settings = ExecutorSettings(executor_module="tests.apps.foreign_executor", allowed_task_modules=(MODULE,))
        p = PoolExecutor(settings, 1, lambda _: None)
        with pytest.raises(SettingError, match="fork"):
            await p.open()
        await p.close()

    in_loop(main())


def test_pool_tasks_that_wait_in_a_child_have_not_started() -> None:
    """Several are sent to a child together. Each starts when the one before it has ended; one that is given back has
    never started."""

    async def main() -> None:
        async with pool(1) as p:
            await learn(p, "note", "/dev/null")
            running = [Running(p, task("note", "/dev/null", 0.5 if n == 0 else 0.0)) for n in range(5)]
            await until(lambda: running[0].starts, "the first has started")
            await asyncio.sleep(0.01)
            assert [one.starts for one in running] == [1, 0, 0, 0, 0]
            assert p.running == 1
            outcomes = [await one.wait() for one in running]
            assert [one.starts for one in running] == [int(outcome.error is None) for outcome in outcomes]
            assert any(map(is_given_back, outcomes))
            assert p.running == 0
            again = [Running(p, task("note", "/dev/null")) for _ in range(5)]
            assert [(await one.wait()).error for one in again] == [None] * 5
            assert [one.starts for one in again] == [1] * 5

    in_loop(main())
