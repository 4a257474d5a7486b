"""The forkserver: it imports once, forks for each task, is replaced when it dies, reloads on request, and refuses to
share what must not be shared."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.errors import ForkserverError
from reproq_listen.model import ClaimedTask, ForkserverTimings, StopReason
from tests.support.executing import (
    DIES_AFTER_REAPING,
    FOREIGN,
    MODE,
    MODULE,
    claimed,
    ended,
    error_of,
    executor,
    is_alive,
    outcome_of,
    pid_in,
    run,
    run_foreign,
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


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `app` that counts how often it is imported in `imports`, and can be changed."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(tmp_path)  # as with `python -m`, modules are found in the working directory
    write_app(tmp_path, "first")
    return tmp_path


def write_app(folder: Path, version: str, extra: str = "") -> None:
    count = f"open({str(folder / 'imports')!r}, 'a').write('x')\n"
    waiting = "def wait(path):\n    import time\n    open(path, 'w').close()\n    time.sleep(1)\n    return version()\n"
    text = f"{count}{extra}\ndef version():\n    return {version!r}\ndef length(text):\n    return len(text)\n{waiting}"
    (folder / "app.new").write_text(text)
    (folder / "app.new").rename(folder / "app.py")  # at once: a forkserver may be importing it just now


def app_task(name: str = "version", *args: Any) -> Any:
    path = f"app.{name}"
    return claimed(json.dumps({"v": 1, "task_path": path, "args": args, "kwargs": {}}), path)


def forkserver_pid(running: Any) -> int:
    (pid,) = running.own_pids - {running.guard_pid}
    return int(pid)


def test_application_is_imported_once(app: Path) -> None:
    """Three tasks in three processes, one import; and each child is a fresh copy of what was imported."""

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            for _ in range(3):
                assert value_of(await outcome_of(running, app_task())) == "first"
        assert (app / "imports").read_text() == "x"

    asyncio.run(main())


def test_foreign_executor_runs_unchanged_and_warm() -> None:
    """`if __name__ == "__main__"`, arguments, stdin, stdout and exit status, as from a cold start."""
    assert value_of(run_foreign(say='{"ok": true, "return": 5}')) == 5
    error = error_of(run_foreign(say="", status=3))
    assert (error.kind, error.exit_status) == ("crashed", 3)


def test_child_has_the_arguments_of_a_program_of_its_own() -> None:
    """sys.argv is the contract's."""
    seen = value_of(run(task("modules")))
    assert seen["arguments"][1:] == ["--result-id", "42", "--attempt", "1", "--payload-stdin"]
    assert seen["argv0"].endswith("executor.py")


def test_children_draw_different_random_numbers() -> None:
    """Though they are copies of one process in which `random` had been imported."""

    async def main() -> None:
        async with executor(preload=("random", "uuid")) as running:
            drawn = [value_of(await outcome_of(running, task("random_numbers"))) for _ in range(4)]
        assert len({str(part) for pair in drawn for part in pair}) == 8

    asyncio.run(main())


def test_exit_handlers_are_those_of_the_task(app: Path) -> None:
    """What the imports have registered belongs to the forkserver; what a task registers runs at its end."""
    imports = app / "registered"
    write_app(app, "first", f"import atexit\natexit.register(lambda: open({str(imports)!r}, 'w').close())\n")
    mine = app / "mine"

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app", "tests.apps.tasks")) as running:
            assert value_of(await outcome_of(running, app_task())) == "first"
            await outcome_of(running, task("at_exit_note", str(mine)))

    asyncio.run(main())
    assert mine.read_text() == "bye"
    assert not imports.exists()


LEAVES_OPEN = """
import logging.handlers, weakref
file = open({folder!r} + "/file", "w")
file.write("import ")
handler = logging.handlers.MemoryHandler(100, target=logging.FileHandler({folder!r} + "/log"))
handler.handle(logging.makeLogRecord(dict(msg="import", levelno=20)))
mortal = set()
weakref.finalize(mortal, open, {folder!r} + "/finalized", "w")
def say(word):
    file.write(word)
    handler.handle(logging.makeLogRecord(dict(msg=word, levelno=20)))
"""


def test_files_that_the_imports_left_open_are_written_once(app: Path) -> None:
    """By the forkserver. A child writes what its task has added, and finalizes nothing of the forkserver's."""
    write_app(app, "first", LEAVES_OPEN.format(folder=str(app)))

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            for word in ("one ", "two "):
                await outcome_of(running, app_task("say", word))

    asyncio.run(main())
    assert (app / "file").read_text() == "import one two "
    assert (app / "log").read_text().split() == ["import", "one", "two"]
    assert not (app / "finalized").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('no such luck')", "no such luck"),
        ("import sys; sys.exit(3)", "status 3"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(60,), name='hum', daemon=True).start()",
            "hum",
        ),
        ("import socket; left, right = socket.socketpair()", "connection"),
    ],
)
def test_forkserver_that_cannot_boot_gives_the_reason(app: Path, text: str, reason: str) -> None:
    """An error, an exit, a thread, an open connection: the executor cannot be opened, and nothing is left over."""
    write_app(app, "first", f"{text}\n")

    async def main() -> None:
        async with executor(preload=("app",)):
            pass

    with pytest.raises(ForkserverError, match=reason):
        asyncio.run(main())


def test_dead_forkserver_is_replaced_and_its_children_finish(app: Path) -> None:
    """The running task ends well, with its usage, and later tasks have a new forkserver."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            attempt = await running.start(app_task("wait", str(app / "runs")))
            await until((app / "runs").exists, "the task runs")
            former = forkserver_pid(running)
            os.kill(former, signal.SIGKILL)
            outcome = await ended(attempt)
            assert value_of(outcome) == "first"
            assert outcome.usage is not None
            assert outcome.usage.exit_status == 0
            assert value_of(await outcome_of(running, app_task())) == "first"
            assert forkserver_pid(running) != former
        assert "ended with status -9" in warnings[0]

    asyncio.run(main())


@pytest.mark.parametrize("what", [task("add", 1, 2), task("leave", 3)])
def test_forkserver_that_dies_before_it_reports_an_exit_is_replaced(app: Path, what: ClaimedTask) -> None:
    """How that child ended is lost: the task's result counts if it came, else it has crashed. Later tasks have a new
    forkserver."""
    write_app(app, "first", DIES_AFTER_REAPING.format(died=str(app / "died")))

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app", MODULE)) as running:
            outcome = await outcome_of(running, what)
            assert (app / "died").exists()
            if outcome.error is None:
                assert value_of(outcome) == 3
            else:
                assert (outcome.error.kind, outcome.error.crash_class) == ("crashed", "exit")
            assert outcome.usage is not None
            assert (outcome.usage.exit_status, outcome.usage.signal) == (None, None)
            assert value_of(await outcome_of(running, app_task())) == "first"
        assert "ended with status -9" in warnings[0]

    asyncio.run(main())


def test_imports_that_ignore_sigchld_do_no_harm(app: Path) -> None:
    """Each child's exit is reported all the same, with its status."""
    write_app(app, "first", "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)")

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app", MODULE)) as running:
            assert value_of(await outcome_of(running, app_task())) == "first"
            assert error_of(await outcome_of(running, task("leave", 3))).exit_status == 3

    asyncio.run(main())


SLOW_TO_LEAVE = """
import os, pathlib, time
leave = os.setsid
def leave_slowly():
    pathlib.Path({forked!r}).touch()
    time.sleep(0.5)
    leave()
os.setsid = leave_slowly
"""


def test_child_that_was_just_forked_outlives_its_forkserver(app: Path) -> None:
    """It is still in the group of its forkserver, which is killed as a whole; the task does not suffer for that."""
    write_app(app, "first", SLOW_TO_LEAVE.format(forked=str(app / "forked")))

    async def main() -> None:
        async with executor([], preload=("app",), allowed_task_modules=("app",)) as running:
            attempts = [await running.start(app_task()) for _ in range(3)]
            await until((app / "forked").exists, "a child is forked")
            os.kill(forkserver_pid(running), signal.SIGKILL)
            for attempt in attempts:
                assert value_of(await ended(attempt)) == "first"

    asyncio.run(main())


def test_tasks_are_given_back_while_there_is_no_forkserver(app: Path) -> None:
    """With the reason. Starts are tried with growing pauses; `on_ready` is called when one succeeds."""

    async def main() -> None:
        warnings: list[str] = []
        returned = asyncio.Event()
        preload = ("app",)
        async with executor(warnings, on_ready=returned.set, preload=preload, allowed_task_modules=preload) as running:
            assert running.is_ready
            returned.clear()
            write_app(app, "second", "raise ValueError('half a deploy')\n")
            os.kill(forkserver_pid(running), signal.SIGKILL)
            await until(lambda: not running.is_ready, "it is gone")
            for _ in range(2):  # one waits for the first try, the other knows its end
                error = error_of(await outcome_of(running, app_task()))
                assert error.kind == "shutdown"
                assert "half a deploy" in error.message
            assert not returned.is_set()
            write_app(app, "second")
            async with asyncio.timeout(15):
                await returned.wait()
            assert running.is_ready
            assert value_of(await outcome_of(running, app_task())) == "second"

    asyncio.run(main())


def test_slow_restart_of_the_forkserver_holds_no_task(app: Path) -> None:
    """A task that waits for it is given back, and closing does not wait for it."""
    timings = ForkserverTimings(wait_seconds=0.3)

    async def main() -> None:
        preload = ("app",)
        async with executor([], preload=preload, allowed_task_modules=preload, forkserver_timings=timings) as running:
            write_app(app, "second", "import time; time.sleep(60)\n")
            os.kill(forkserver_pid(running), signal.SIGKILL)
            await until(lambda: not running.is_ready, "it is gone")
            assert error_of(await outcome_of(running, app_task())).kind == "shutdown"

    asyncio.run(main())


def test_forkserver_that_does_not_answer_is_replaced(app: Path) -> None:
    """A stopped forkserver delays a task for `answer_seconds`, not longer."""
    timings = ForkserverTimings(answer_seconds=0.5)

    async def main() -> None:
        warnings: list[str] = []
        preload = ("app",)
        async with executor(
            warnings, preload=preload, allowed_task_modules=preload, forkserver_timings=timings
        ) as running:
            os.kill(forkserver_pid(running), signal.SIGSTOP)
            assert value_of(await outcome_of(running, app_task())) == "first"
        assert "ended with status -9" in warnings[0]

    asyncio.run(main())


def test_arguments_of_any_size_reach_the_task(app: Path) -> None:
    """They do not pass the forkserver, whose messages have a limit."""

    async def main() -> None:
        preload = ("app",)
        async with executor(payload_mode="inline", preload=preload, allowed_task_modules=preload) as running:
            assert value_of(await outcome_of(running, app_task("length", "x" * 400_000))) == 400_000
            assert value_of(await outcome_of(running, app_task())) == "first"

    asyncio.run(main())


def test_task_that_waits_for_a_forkserver_can_be_stopped(app: Path) -> None:
    """At once: the end of a lease, or a shutdown, does not wait for the forkserver."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            write_app(app, "second", "raise ValueError('half a deploy')\n")
            os.kill(forkserver_pid(running), signal.SIGKILL)
            await until(lambda: len(running.own_pids) == 1, "it is gone")
            attempts = [await running.start(app_task()) for _ in range(3)]
            await asyncio.sleep(0)
            attempts[0].stop(StopReason.LOST)
            attempts[1].kill()
            assert error_of(await ended(attempts[0], 2)).kind == "lost"
            assert error_of(await ended(attempts[1], 2)).kind == "shutdown"
        assert error_of(await ended(attempts[2], 2)).kind == "shutdown"

    asyncio.run(main())


def test_reload_runs_new_code_while_old_children_finish(app: Path) -> None:
    """The old forkserver ends with its last child."""

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            former = forkserver_pid(running)
            attempt = await running.start(app_task("wait", str(app / "runs")))
            await until((app / "runs").exists, "the task runs")
            write_app(app, "second")
            await running.reload()
            assert value_of(await outcome_of(running, app_task())) == "second"
            assert is_alive(former)
            assert value_of(await ended(attempt)) == "first"
            await until(lambda: not is_alive(former), "the old forkserver has ended")

    asyncio.run(main())


def test_old_forkserver_ends_after_a_child_that_was_not_wanted(app: Path) -> None:
    """The attempt was stopped while its child was being forked, and a reload came before that was done."""

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            former = forkserver_pid(running)
            os.kill(former, signal.SIGSTOP)
            attempt = await running.start(app_task("wait", str(app / "runs")))
            await asyncio.sleep(0)  # the request is sent
            await running.reload()
            attempt.stop(StopReason.CANCELLED)
            assert error_of(await ended(attempt)).kind == "cancelled"
            os.kill(former, signal.SIGCONT)
            await until(lambda: not is_alive(former), "the old forkserver has ended")

    asyncio.run(main())


def test_reload_of_broken_code_keeps_the_old(app: Path) -> None:
    """With a warning."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            write_app(app, "second", "raise ValueError('half a deploy')\n")
            await running.reload()
            assert value_of(await outcome_of(running, app_task())) == "first"
        assert "half a deploy" in warnings[0]

    asyncio.run(main())


def test_copy_of_the_child_in_a_session_of_its_own_is_found(tmp_path: Path) -> None:
    """It runs no other program, so /proc shows the environment that the child has written there."""

    async def main() -> None:
        async with executor() as running:
            assert value_of(await outcome_of(running, task("fork_a_sleeper", str(tmp_path / "pid")))) == "left"
            await until(lambda: not is_alive(written_pid(tmp_path / "pid")), "the copy is dead", 5)

    asyncio.run(main())


def test_copy_of_the_child_lives_as_long_as_its_attempt(tmp_path: Path) -> None:
    """Sweeps after the ends of other attempts leave it alone."""

    async def main() -> None:
        async with executor() as running:
            attempt = await running.start(task("keep_a_daemon", str(tmp_path / "pid")))
            pid = await pid_in(tmp_path / "pid")
            before = running.sweeps
            await outcome_of(running, task("add", 1, 2))
            await until(lambda: running.sweeps > before + 1, "sweeps have been made")
            assert is_alive(pid)
            attempt.kill()
            await ended(attempt)
            await until(lambda: not is_alive(pid), "it is dead", 5)

    asyncio.run(main())


def test_django_project_is_ready_in_every_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """DJANGO_SETTINGS_MODULE is enough: models can be used at once, and nothing is connected."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.bench.shop.settings")
    path = "tests.bench.shop.tasks.knows_its_models"
    what = claimed(f'{{"v": 1, "task_path": "{path}", "args": [], "kwargs": {{}}}}', path)
    for mode in ("fork", "spawn"):
        MODE.set(mode)
        assert value_of(run(what, allowed_task_modules=("tests.bench.shop.tasks",))) == "auth.User", mode


def test_payload_in_a_file_and_on_the_command_line() -> None:
    """All ways of the contract work with a forked child, ours and a foreign one."""
    for mode in ("file", "inline"):
        assert value_of(run(task("add", 1, 2), payload_mode=mode)) == 3
        what = task("add", kwargs={"say": '{"ok": true, "return": 5}'})
        assert value_of(run(what, payload_mode=mode, executor_module=FOREIGN)) == 5
