"""What children inherit, where payloads lie, and what the start-up check refuses."""

import asyncio
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from reproq_listen.errors import ForkserverError, SettingError
from reproq_listen.executors.process.payload_files import PayloadFiles
from reproq_listen.model import ForkserverTimings
from tests.support.database import ROOT
from tests.support.executing import FOREIGN, ended, executor, outcome_of, pid_in, run, task, until, value_of

pytestmark = pytest.mark.usefixtures("each_mode")


def test_children_inherit_the_environment_without_the_servers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """METRICS_* are gone, the rest is there. Of our own variables only the tag reaches the task."""
    monkeypatch.setenv("METRICS_AUTH_TOKEN", "secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://app")
    monkeypatch.setenv("REPROQ_EXECUTOR_ALLOW", "*")
    seen = value_of(run(task("environment")))
    assert not {"METRICS_AUTH_TOKEN", "REPROQ_EXECUTOR_ALLOW", "REPROQ_EXECUTOR_RESULT_FD"} & set(seen)
    assert seen["DATABASE_URL"] == "postgresql://app"
    assert seen["PATH"] == os.environ["PATH"]
    assert "REPROQ_ATTEMPT_TAG" in seen


def test_executor_privacy_list_of_variables_keeps_all_others_from_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual few are there, and what the list names: whole names, and beginnings with a star behind."""
    for name in ("DATABASE_URL", "AWS_REGION", "AWSOME", "DJANGO_SETTINGS", "METRICS_AUTH_TOKEN"):
        monkeypatch.setenv(name, "x")
    seen = value_of(run(task("environment"), executor_env=("AWS_*", "DJANGO_SETTINGS", "METRICS_*")))
    assert {"PATH", "PYTHONPATH", "AWS_REGION", "DJANGO_SETTINGS", "REPROQ_ATTEMPT_TAG"} <= set(seen)
    assert not {"DATABASE_URL", "AWSOME", "METRICS_AUTH_TOKEN"} & set(seen)


def test_child_starts_in_a_private_world() -> None:
    """umask 077, no core dumps, a session and group of its own, no descriptors but 0-2 and the result's; no
    payload in the process list."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        seen = value_of(run(task("circumstances")))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    assert (seen["umask"], seen["core"]) == (0o077, 0)
    assert seen["leads_session"]
    assert seen["leads_group"]
    assert seen["descriptors"] == 4
    assert not [argument for argument in seen["arguments"] if "circumstances" in argument]


def test_executor_checks_the_list_itself() -> None:
    """The child refuses what is not on the list handed down to it; without one it uses
    ALLOWED_TASK_MODULES or its default."""
    spec = task("add", 1, 2).spec

    def answer(**variables: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "reproq_listen.executor", "--result-id=1", "--attempt", "1", "--payload-stdin"],
            input=spec.encode(),
            capture_output=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
            cwd=ROOT,
            check=False,
        )
        envelope: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if envelope["ok"] else 1)
        return envelope

    assert answer(ALLOWED_TASK_MODULES="tests.") == {"ok": True, "return": 3}
    assert answer(REPROQ_EXECUTOR_ALLOW="other", ALLOWED_TASK_MODULES="*")["kind"] == "security_violation"
    assert answer(REPROQ_EXECUTOR_ALLOW="", ALLOWED_TASK_MODULES="*")["kind"] == "security_violation"
    assert answer()["kind"] == "security_violation"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--result-id", "1", "--attempt", "1"],
        ["--result-id", "x", "--attempt", "1", "--payload-stdin"],
        ["--result-id", "1", "--attempt", "-1", "--payload-stdin"],
        ["--result-id", "1", "--attempt", "1", "--payload-stdin", "--payload-json", "{}"],
        ["--result-id", "1", "--attempt", "1", "--payload-stdin", "--verbose"],
        ["--result-id", "1", "--result-id", "2", "--attempt", "1", "--payload-stdin"],
    ],
)
def test_wrong_command_line_of_the_executor(arguments: list[str]) -> None:
    """Status 2, a usage text on stderr, nothing on stdout, no traceback."""
    command = [sys.executable, "-m", "reproq_listen.executor", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"usage:" in done.stderr
    assert b"Traceback" not in done.stderr


def test_executor_under_a_foreign_supervisor_keeps_prints_out_of_its_envelope() -> None:
    """Started without our pipe, the envelope alone is on stdout."""
    command = [sys.executable, "-m", "reproq_listen.executor", "--result-id=1", "--attempt=1"]
    done = subprocess.run(
        [*command, "--payload-json", task("shout", "hello").spec],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"ALLOWED_TASK_MODULES": "tests"},
        cwd=ROOT,
        check=True,
    )
    assert json.loads(done.stdout) == {"ok": True, "return": "said"}
    assert b"hello" in done.stderr


def payload_directories() -> list[Path]:
    parent = Path(os.environ["TMPDIR"]) / f"reproq-payloads-{os.getuid()}"
    return list(parent.iterdir()) if parent.exists() else []


@pytest.fixture
def private_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that is this test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_payload_file_is_private_and_removed(private_temp: Path) -> None:
    """Mode `file`: 0600 in a directory 0700 while the task runs, gone when it ends, however it ends."""

    async def main() -> None:
        async with executor(payload_mode="file") as running:
            path = private_temp / "pid"
            attempt = await running.start(task("sleep", str(path)))
            await pid_in(path)
            (directory,) = payload_directories()
            (file,) = directory.iterdir()
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
            attempt.kill()
            await ended(attempt)
            assert value_of(await outcome_of(running, task("add", 1, 2))) == 3
            await outcome_of(running, task("kill_me", 9))
            assert list(directory.iterdir()) == []
        assert payload_directories() == []

    asyncio.run(main())


def test_payload_file_is_removed_when_no_process_starts(each_mode: str, private_temp: Path) -> None:
    """Also when the program to start is gone, and with it the forkserver."""
    timings = ForkserverTimings(wait_seconds=0.1)
    python = private_temp / "python"
    python.symlink_to(sys.executable)

    async def main() -> None:
        async with executor([], payload_mode="file", python_bin=str(python), forkserver_timings=timings) as running:
            python.unlink()
            if each_mode == "fork":
                (pid,) = running.own_pids - {running.guard_pid}
                os.kill(pid, signal.SIGKILL)
                await until(lambda: len(running.own_pids) == 1, "it is gone")
            outcome = await outcome_of(running, task("add", 1, 2))
            assert outcome.error is not None
            assert outcome.error.kind == "shutdown"
            assert "no process could be started" in outcome.error.message
            (directory,) = payload_directories()
            assert list(directory.iterdir()) == []

    asyncio.run(main())
    assert private_temp.exists()


def test_payloads_of_dead_workers_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    """A directory that is old and unlocked has no owner any more."""
    parent = tmp_path / "payloads"
    alive = PayloadFiles(parent)
    payload = alive.write(b"mine")
    dead = parent / "worker-dead"
    fresh = parent / "worker-fresh"
    for directory in (dead, fresh):
        directory.mkdir()
        (directory / "payload").write_bytes(b"secret")
    long_ago = time.time() - 3600
    for directory in (dead, alive.directory):
        os.utime(directory, (long_ago, long_ago))
    PayloadFiles(parent).close()
    assert not dead.exists()
    assert fresh.exists()
    assert payload.read_bytes() == b"mine"
    alive.close()


@pytest.mark.parametrize("trap", ["open to others", "symbolic link", "file"])
def test_place_for_payloads_that_is_not_ours_alone_is_refused(trap: str, tmp_path: Path) -> None:
    """Another user may have made it first, to read what is written there."""
    parent = tmp_path / "payloads"
    if trap == "file":
        parent.write_text("")
    elif trap == "symbolic link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        parent.symlink_to(tmp_path / "elsewhere")
    else:
        parent.mkdir()
        parent.chmod(0o755)
    with pytest.raises(OSError, match="payloads"):
        PayloadFiles(parent)


def test_payload_files_are_never_written_through_links(tmp_path: Path) -> None:
    """O_EXCL, O_NOFOLLOW."""
    files = PayloadFiles(tmp_path / "payloads")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (files.directory / "payload-0000000001.json").symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.write(b"secret")
    assert victim.read_text() == "precious"
    files.close()


def test_half_a_payload_is_not_left_behind(tmp_path: Path) -> None:
    """A disk that is full (here: a limit on the size of files) leaves no part of a payload."""
    files = PayloadFiles(tmp_path / "payloads")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write(b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(files.directory.iterdir()) == []
    files.close()


@pytest.mark.parametrize("mode", ["stdin", "file", "inline"])
@pytest.mark.parametrize("module", ["reproq_listen.executor", FOREIGN])
def test_payload_modes_serve_every_executor(mode: str, module: str, private_temp: Path) -> None:
    """The contract's three ways to hand over a payload."""
    what = task("echo", kwargs={"say": '{"ok": true, "return": "ä"}'.encode().decode("latin-1")})
    outcome = run(what, payload_mode=mode, executor_module=module)
    assert value_of(outcome) == ("ä" if module == FOREIGN else [[], json.loads(what.spec)["kwargs"]])
    assert payload_directories() == []
    assert private_temp.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"python_bin": "/nonexistent/python"}, "--python-bin /nonexistent/python"),
        ({"python_bin": "no-such-python-anywhere"}, "--python-bin"),
        ({"python_bin": __file__}, "--python-bin"),
        ({"python_bin": "/bin/false"}, "--executor-module|the imports failed"),
        ({"executor_module": "no_such_module_anywhere"}, "cannot find|No module named 'no_such_module_anywhere'"),
        ({"executor_module": "no_such_package.executor"}, "No module named"),
        ({"allowed_task_modules": ("my app",)}, "--allowed-task-modules"),
    ],
)
def test_check_names_the_setting_and_the_remedy(changes: dict[str, Any], reason: str) -> None:
    """What would make every task fail is an error before the first one."""

    async def main() -> None:
        async with executor(**changes):
            pass

    with pytest.raises((SettingError, ForkserverError), match=reason.replace("(", r"\(")):
        asyncio.run(main())


def test_check_passes_what_works() -> None:
    """And leaves nothing behind."""

    async def main() -> None:
        async with executor():
            pass

    asyncio.run(main())
