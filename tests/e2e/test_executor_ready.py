"""Children that `fork` has ready before there is a task: each runs one task, has all limits before it, and no old code.
It costs nothing while it waits, and is replaced when it dies."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.executing import (
    MODE,
    claimed,
    ended,
    error_of,
    executor,
    is_alive,
    outcome_of,
    task,
    until,
    value_of,
    written_pid,
)


@pytest.fixture(autouse=True)
def fork_mode() -> Iterator[None]:
    """All tests here are of `fork`."""
    token = MODE.set("fork")
    yield
    MODE.reset(token)


async def all_ready(running: Any, count: int = 1) -> set[int]:
    """The ready children, once there are as many as wanted."""
    await until(lambda: len(running.ready_pids) >= count, "children are ready")
    await asyncio.sleep(0.1)  # time for too many
    pids: set[int] = running.ready_pids
    assert len(pids) == count
    return pids


def lines_of(pid: int, file: str, word: str) -> list[str]:
    """The lines of a file in /proc/PID that have this word."""
    return [line for line in Path(f"/proc/{pid}/{file}").read_text().splitlines() if word in line]


def test_executor_ready_each_ready_child_runs_one_task_and_is_replaced(tmp_path: Path) -> None:
    """The oldest takes the next task, and ends with it; there are never more than wanted."""

    async def main() -> None:
        async with executor(children_ahead=3) as running:
            before = await all_ready(running, 3)
            used = set()
            for number in range(3):
                path = tmp_path / str(number)
                value_of(await outcome_of(running, task("write_pid", str(path))))
                used.add(written_pid(path))
            assert used == before
            after = await all_ready(running, 3)
            assert not after & before
            assert not any(map(is_alive, before))

    asyncio.run(main())


def test_more_tasks_than_ready_children_all_run() -> None:
    """A burst is not limited by the number of children that are ready."""

    async def main() -> None:
        async with executor(children_ahead=2) as running:
            await all_ready(running, 2)
            outcomes = await asyncio.gather(*(outcome_of(running, task("add", n, 1)) for n in range(12)))
            assert [value_of(outcome) for outcome in outcomes] == [n + 1 for n in range(12)]
            await all_ready(running, 2)

    asyncio.run(main())


def test_ready_child_costs_nothing() -> None:
    """It does not wake up while it waits, and the worker does nothing for it."""

    async def main() -> None:
        async with executor() as running:
            (pid,) = await all_ready(running)
            before = lines_of(pid, "status", "ctxt_switches")
            await asyncio.sleep(1)
            assert lines_of(pid, "status", "ctxt_switches") == before

    asyncio.run(main())


def test_ready_child_has_its_limits_and_its_own_session() -> None:
    """Before there is a task: the limits of memory and open files, its own session and group, and the guard."""

    async def main() -> None:
        async with executor(memory_bytes=1 << 30, open_files=200) as running:
            (pid,) = await all_ready(running)
            assert str(1 << 30) in lines_of(pid, "limits", "Max data size")[0]
            assert " 200 " in lines_of(pid, "limits", "Max open files")[0]
            assert os.getsid(pid) == os.getpgid(pid) == pid
            assert pid in running.guarded_groups

    asyncio.run(main())


def test_time_of_a_task_counts_from_its_own_beginning() -> None:
    """Its child may have waited for longer than the task may take."""

    async def main() -> None:
        async with executor(exec_timeout=timedelta(seconds=1)) as running:
            await all_ready(running)
            await asyncio.sleep(1.5)
            outcome = await outcome_of(running, task("add", 1, 2))
            assert value_of(outcome) == 3
            assert outcome.usage is not None
            assert outcome.usage.wall_seconds < 1

    asyncio.run(main())


def test_ready_child_that_dies_is_replaced() -> None:
    """No task fails for it."""

    async def main() -> None:
        async with executor() as running:
            (pid,) = await all_ready(running)
            os.kill(pid, signal.SIGKILL)
            await until(lambda: pid not in running.ready_pids, "its death is noticed")
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3
            assert not is_alive(pid)

    asyncio.run(main())


def test_task_of_a_child_that_dies_before_it_has_begun_is_given_back() -> None:
    """The kind `shutdown` means: READY again, attempt not charged."""

    async def main() -> None:
        async with executor() as running:
            (pid,) = await all_ready(running)
            os.kill(pid, signal.SIGSTOP)
            await until(lambda: lines_of(pid, "status", "(stopped)"), "it is stopped")
            attempt = await running.start(task("add", 1, 2))
            await until(lambda: pid not in running.ready_pids, "it has the task")
            await asyncio.sleep(0.1)
            os.kill(pid, signal.SIGKILL)
            error = error_of(await ended(attempt))
            assert (error.kind, "before" in error.message) == ("shutdown", True)
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3

    asyncio.run(main())


def test_child_that_dies_in_its_task_is_a_crash() -> None:
    """Only a task that has not begun is given back."""

    async def main() -> None:
        async with executor() as running:
            assert error_of(await outcome_of(running, task("kill_me", 9))).kind == "crashed"

    asyncio.run(main())


def test_children_that_keep_dying_are_started_with_pauses() -> None:
    """Meanwhile no task is claimed; and the executor says when it is ready again."""

    async def main() -> None:
        warnings: list[str] = []
        returned: list[bool] = []
        async with executor(warnings=warnings, on_ready=lambda: returned.append(True)) as running:
            returned.clear()
            for _ in range(2):
                (pid,) = await all_ready(running)
                os.kill(pid, signal.SIGKILL)
                await until(lambda: not running.ready_pids & {pid}, "its death is noticed")  # noqa: B023
            assert not running.is_ready
            assert "died before it had a task" in warnings[0]
            await until(lambda: running.is_ready, "the pause is over")
            assert returned == [True]
            await all_ready(running)
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3

    asyncio.run(main())


def test_ready_child_has_no_old_code_after_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that were ready before are replaced, whatever they have imported."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(tmp_path)
    app = tmp_path / "app.py"
    app.write_text("def version():\n    return 'first'\n")
    what = claimed(json.dumps({"v": 1, "task_path": "app.version", "args": [], "kwargs": {}}), "app.version")

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",), children_ahead=3) as running:
            before = await all_ready(running, 3)
            app.write_text("def version():\n    return 'second'\n")
            await running.reload()
            assert not running.ready_pids & before
            assert value_of(await outcome_of(running, what)) == "second"
            await until(lambda: not any(map(is_alive, before)), "the old children are gone")

    asyncio.run(main())


def test_ready_children_die_with_the_worker(tmp_path: Path) -> None:
    """Nothing keeps the input of a waiting child open but the worker, and the guard kills its group."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import asyncio, sys\n"
        "from tests.support.executing import MODE, executor\n"
        "async def main():\n"
        "    MODE.set('fork')\n"
        "    async with executor(children_ahead=2) as running:\n"
        "        while len(running.ready_pids) < 2:\n"
        "            await asyncio.sleep(0.01)\n"
        "        print(*running.ready_pids, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
        assert process.stdout is not None
        pids = [int(pid) for pid in (await process.stdout.readline()).split()]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        process.kill()
        await process.wait()
        await until(lambda: not any(map(is_alive, pids)), "they are dead", seconds=3)

    asyncio.run(main())
