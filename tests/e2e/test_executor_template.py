"""The template: imported once, forked for each task, replaced when it dies, reloaded when told to, refused when it
would share what must not be shared."""

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
from reproq_listen.executors.forkserver import client as template_link
from reproq_listen.executors.forkserver import forkserver as template
from reproq_listen.model import ClaimedTask, StopReason
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
    noted_pid,
    outcome_of,
    pid_in,
    run,
    run_foreign,
    task,
    until,
    value_of,
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
    text = f"{count}{extra}\ndef version():\n    return {version!r}\n{waiting}"
    (folder / "app.new").write_text(text)
    (folder / "app.new").rename(folder / "app.py")  # at once: a template may be importing it just now


def app_task(name: str = "version", *args: Any) -> Any:
    path = f"app.{name}"
    return claimed(json.dumps({"v": 1, "task_path": path, "args": args, "kwargs": {}}), path)


def template_pid(running: Any) -> int:
    (pid,) = running.own_pids - {running.guard_pid}
    return int(pid)


def test_the_application_is_imported_once(app: Path) -> None:
    """Three tasks in three processes, one import; and each child is a fresh copy of what was imported."""

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            for _ in range(3):
                assert value_of(await outcome_of(running, app_task())) == "first"
        assert (app / "imports").read_text() == "x"

    asyncio.run(main())


def test_a_foreign_executor_runs_unchanged_and_warm() -> None:
    """`if __name__ == "__main__"`, arguments, stdin, stdout and exit status, as from a cold start."""
    assert value_of(run_foreign(say='{"ok": true, "return": 5}')) == 5
    error = error_of(run_foreign(say="", status=3))
    assert (error.kind, error.exit_status) == ("crashed", 3)


def test_a_child_takes_itself_for_a_program_of_its_own() -> None:
    """sys.argv is the contract's, and what the template has imported is there."""
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
    """What the imports have registered belongs to the template; what a task registers runs at its end."""
    noted = app / "noted"
    write_app(app, "first", f"import atexit\natexit.register(lambda: open({str(noted)!r}, 'w').close())\n")
    mine = app / "mine"

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app", "tests.apps.tasks")) as running:
            assert value_of(await outcome_of(running, app_task())) == "first"
            await outcome_of(running, task("at_exit_note", str(mine)))

    asyncio.run(main())
    assert mine.read_text() == "bye"
    assert not noted.exists()


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


def test_what_the_imports_have_left_open_is_written_once(app: Path) -> None:
    """By the template; a child writes what its task has added. What is finalized with the template is no child's."""
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
def test_a_template_that_cannot_boot_says_why(app: Path, text: str, reason: str) -> None:
    """An error, an exit, a thread, an open connection: the executor cannot be opened, and nothing is left over."""
    write_app(app, "first", f"{text}\n")

    async def main() -> None:
        async with executor(preload=("app",)):
            pass

    with pytest.raises(ForkserverError, match=reason):
        asyncio.run(main())


def test_a_template_that_dies_is_replaced_and_its_children_finish(app: Path) -> None:
    """The running task ends well, its end is seen with its accounts, and later tasks have a new template."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            attempt = await running.start(app_task("wait", str(app / "runs")))
            await until((app / "runs").exists, "the task runs")
            former = template_pid(running)
            os.kill(former, signal.SIGKILL)
            outcome = await ended(attempt)
            assert value_of(outcome) == "first"
            assert outcome.usage is not None
            assert outcome.usage.exit_status == 0
            assert value_of(await outcome_of(running, app_task())) == "first"
            assert template_pid(running) != former
        assert "ended with status -9" in warnings[0]

    asyncio.run(main())


@pytest.mark.parametrize("what", [task("add", 1, 2), task("leave", 3)])
def test_a_template_that_dies_before_it_tells_of_an_end_is_replaced(app: Path, what: ClaimedTask) -> None:
    """Nobody can know how that child ended: the task's result counts if it came, else it has crashed. Later tasks have
    a new template."""
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


def test_imports_that_ignore_the_ends_of_children_harm_nobody(app: Path) -> None:
    """Each child's end is told all the same, with its status."""
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
    pathlib.Path({born!r}).touch()
    time.sleep(0.5)
    leave()
os.setsid = leave_slowly
"""


def test_a_child_that_is_just_born_outlives_its_template(app: Path) -> None:
    """It is still in the group of its template, of which nothing is to be left; its task is not charged for that."""
    write_app(app, "first", SLOW_TO_LEAVE.format(born=str(app / "born")))

    async def main() -> None:
        async with executor([], preload=("app",), allowed_task_modules=("app",)) as running:
            attempts = [await running.start(app_task()) for _ in range(3)]
            await until((app / "born").exists, "a child is born")
            os.kill(template_pid(running), signal.SIGKILL)
            for attempt in attempts:
                assert value_of(await ended(attempt)) == "first"

    asyncio.run(main())


def test_tasks_are_given_back_while_a_template_cannot_come_back(app: Path) -> None:
    """With the reason. It is tried with growing pauses; when the code is whole again the executor says so."""

    async def main() -> None:
        warnings: list[str] = []
        returned = asyncio.Event()
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            assert running.is_ready
            running.on_room = returned.set
            write_app(app, "second", "raise ValueError('half a deploy')\n")
            os.kill(template_pid(running), signal.SIGKILL)
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


def test_a_template_that_takes_long_to_come_back_holds_no_task(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is given back; and it is not waited for at the end."""
    monkeypatch.setattr(template, "_WAIT_SECONDS", 0.3)

    async def main() -> None:
        async with executor([], preload=("app",), allowed_task_modules=("app",)) as running:
            write_app(app, "second", "import time; time.sleep(60)\n")
            os.kill(template_pid(running), signal.SIGKILL)
            await until(lambda: not running.is_ready, "it is gone")
            assert error_of(await outcome_of(running, app_task())).kind == "shutdown"

    asyncio.run(main())


def test_a_template_that_does_not_answer_is_replaced(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped template holds up a task for as long as the worker is patient, not longer."""
    monkeypatch.setattr(template_link, "_PATIENCE_SECONDS", 0.5)

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            os.kill(template_pid(running), signal.SIGSTOP)
            assert value_of(await outcome_of(running, app_task())) == "first"
        assert "ended with status -9" in warnings[0]

    asyncio.run(main())


def test_a_task_that_is_too_large_to_be_asked_for_costs_no_template(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails; the template, which has not been asked anything, is not taken for one that does not answer."""
    monkeypatch.setattr(template_link, "_PATIENCE_SECONDS", 0.5)
    monkeypatch.setenv("REPROQ_DEV", "1")

    async def main() -> None:
        async with executor(payload_mode="inline", preload=("app",), allowed_task_modules=("app",)) as running:
            before = template_pid(running)
            assert "too long" in error_of(await outcome_of(running, app_task("version", "x" * 400_000))).message
            assert value_of(await outcome_of(running, app_task())) == "first"
            assert error_of(await outcome_of(running, app_task("version", "x" * 400_000))).kind == "crashed"
            births: Any = running._births
            assert births._template._current.link._alarm is None
            assert template_pid(running) == before

    asyncio.run(main())


def test_a_task_that_waits_for_a_template_can_be_stopped(app: Path) -> None:
    """At once: a lease that ends, or a shutdown, does not wait for a template that does not come."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            write_app(app, "second", "raise ValueError('half a deploy')\n")
            os.kill(template_pid(running), signal.SIGKILL)
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
    """The old template ends with its last child."""

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            former = template_pid(running)
            attempt = await running.start(app_task("wait", str(app / "runs")))
            await until((app / "runs").exists, "the task runs")
            write_app(app, "second")
            await running.reload()
            assert value_of(await outcome_of(running, app_task())) == "second"
            assert is_alive(former)
            assert value_of(await ended(attempt)) == "first"
            await until(lambda: not is_alive(former), "the old template has ended")

    asyncio.run(main())


def test_an_old_template_ends_though_its_last_child_was_never_wanted(app: Path) -> None:
    """The attempt was stopped while the child was on its way, and a reload came before it."""

    async def main() -> None:
        async with executor(preload=("app",), allowed_task_modules=("app",)) as running:
            former = template_pid(running)
            os.kill(former, signal.SIGSTOP)
            attempt = await running.start(app_task("wait", str(app / "runs")))
            await asyncio.sleep(0)  # it is asked for
            await running.reload()
            attempt.stop(StopReason.CANCELLED)
            assert error_of(await ended(attempt)).kind == "cancelled"
            os.kill(former, signal.SIGCONT)
            await until(lambda: not is_alive(former), "the old template has ended")

    asyncio.run(main())


def test_reload_of_broken_code_keeps_the_old(app: Path) -> None:
    """And says so."""

    async def main() -> None:
        warnings: list[str] = []
        async with executor(warnings, preload=("app",), allowed_task_modules=("app",)) as running:
            write_app(app, "second", "raise ValueError('half a deploy')\n")
            await running.reload()
            assert value_of(await outcome_of(running, app_task())) == "first"
        assert "half a deploy" in warnings[0]

    asyncio.run(main())


def test_a_copy_of_the_child_in_a_session_of_its_own_is_found(tmp_path: Path) -> None:
    """It has not executed a program, so what /proc shows of its environment is what the child has written there."""

    async def main() -> None:
        async with executor() as running:
            assert value_of(await outcome_of(running, task("fork_a_sleeper", str(tmp_path / "pid")))) == "left"
            await until(lambda: not is_alive(noted_pid(tmp_path / "pid")), "the copy is dead", 5)

    asyncio.run(main())


def test_a_copy_of_the_child_lives_as_long_as_its_attempt(tmp_path: Path) -> None:
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


def test_a_django_project_is_ready_in_every_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """DJANGO_SETTINGS_MODULE is enough: models can be used at once, and nothing is connected."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.bench.shop.settings")
    path = "tests.bench.shop.tasks.knows_its_models"
    what = claimed(f'{{"v": 1, "task_path": "{path}", "args": [], "kwargs": {{}}}}', path)
    for mode in ("fork", "spawn"):
        MODE.set(mode)
        assert value_of(run(what, allowed_task_modules=("tests.bench.shop.tasks",))) == "auth.User", mode


def test_a_payload_in_a_file_and_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """All channels of the contract lead to a forked child, ours and a foreign one."""
    monkeypatch.setenv("REPROQ_DEV", "1")
    for mode in ("file", "inline"):
        assert value_of(run(task("add", 1, 2), payload_mode=mode)) == 3
        what = task("add", kwargs={"say": '{"ok": true, "return": 5}'})
        assert value_of(run(what, payload_mode=mode, executor_module=FOREIGN)) == 5
