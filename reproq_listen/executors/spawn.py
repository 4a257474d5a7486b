"""The executor mode `spawn`: a cold `python -m MODULE` for every attempt, payload in, one JSON envelope out.

Our own module answers over a private pipe, any other one on stdout. A guard process kills all children when
this process dies, and orphans that left their group are found as this process's adopted children.
"""

import asyncio
import itertools
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from reproq_listen import allowlist
from reproq_listen.errors import SettingError
from reproq_listen.executors import child as children
from reproq_listen.executors.attempt import Attempt, Limits
from reproq_listen.executors.guard import Guard
from reproq_listen.executors.oom import OomCounter
from reproq_listen.executors.orphans import Orphans
from reproq_listen.executors.payload_files import PayloadFiles
from reproq_listen.model import ClaimedTask, ExecutorSettings, TaskError
from reproq_listen.protocol import MARK_ENV
from reproq_listen.wire import InvalidSpecError, clean_text, spec_path

OUR_MODULE = "reproq_listen.executor"
_CHECK_SECONDS = 30.0
_FIND_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class _RefusedError(Exception):
    """This task is not started; carries the error of its outcome."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.error = TaskError(kind=kind, message=clean_text(message))


class SpawnExecutor:
    """Starts children and owns them all, with their guard. One a process; bound to one event loop."""

    def __init__(self, settings: ExecutorSettings, warn: Callable[[str], None]) -> None:
        """`warn` is told what an operator should know and no task is to blame for."""
        mark = secrets.token_hex(8)
        self._settings = settings
        self._mark = mark
        self._warn = warn
        self._numbers = itertools.count(1)
        self._running: dict[str, Attempt] = {}
        self._guard = Guard(mark, warn)
        self._orphans = Orphans(mark)
        self._oom = OomCounter()
        self._files: PayloadFiles | None = None
        self._environment = children.environment_for_children(settings, os.environ)

    @property
    def guard_pid(self) -> int | None:
        """The guard's process, or None before the first task."""
        return self._guard.pid

    @property
    def sweeps(self) -> int:
        """How often orphans have been looked for."""
        return self._orphans.sweeps

    def check(self) -> None:
        """Look at everything that would make every task fail. Raises SettingError that names the cure.

        Starts the configured Python once, and waits for it.
        """
        settings = self._settings
        try:
            allowlist.check_entries(settings.allowed_task_modules)
        except ValueError as error:
            raise SettingError(f"--allowed-task-modules: {error}") from None
        if settings.payload_mode not in ("stdin", "file", "inline"):
            raise SettingError(f"--payload-mode {settings.payload_mode}: must be stdin, file or inline")
        if settings.payload_mode == "inline" and os.environ.get("REPROQ_DEV") != "1":
            raise SettingError(
                "--payload-mode inline shows every payload in the process list: use stdin or file, "
                "or set REPROQ_DEV=1 on a development machine"
            )
        if shutil.which(settings.python_bin) is None:
            raise SettingError(
                f"--python-bin {settings.python_bin}: there is no such program, or it may not be executed; "
                "give the path of the Python that has your application installed"
            )
        self._check_module()
        self._ready_files()

    def _check_module(self) -> None:
        arguments = [self._settings.python_bin, "-c", _FIND_MODULE, self._settings.executor_module]
        try:
            found = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=self._environment,
                timeout=_CHECK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SettingError(f"--python-bin {self._settings.python_bin} cannot be run: {error}") from None
        if found.returncode != 0:
            lines = found.stderr.decode(errors="replace").strip().splitlines()
            why = f" ({clean_text(lines[-1], 300)})" if lines else ""
            raise SettingError(
                f"--executor-module {self._settings.executor_module}: {self._settings.python_bin} cannot find "
                f"this module{why}; install it there, or give another --python-bin"
            )

    def _ready_files(self) -> None:
        if self._settings.payload_mode == "file" and self._files is None:
            try:
                self._files = PayloadFiles()
            except OSError as error:
                raise SettingError(f"--payload-mode file: no private place for payloads: {error}") from None

    async def start(self, task: ClaimedTask) -> Attempt:
        """Start an attempt. Never raises for a fault of the task or a lack of resources: the attempt that
        could not be started has an outcome that says so."""
        attempt = Attempt()
        try:
            payload = self._admit(task)
            self._launch(task, payload, attempt)
        except _RefusedError as refusal:
            attempt.refuse(refusal.error)
        except OSError as error:
            message = clean_text(f"no process could be started for the task: {error}")
            attempt.refuse(TaskError(kind="crashed", message=message))
        return attempt

    def _admit(self, task: ClaimedTask) -> bytes:
        """Give the payload of a task that may run. Raises _RefusedError."""
        payload = task.spec.encode(errors="surrogatepass")
        limit = self._settings.max_payload_bytes
        if len(payload) > limit:
            message = f"the spec has {len(payload)} bytes; the limit is {limit} (max_payload_bytes)"
            raise _RefusedError("payload_too_large", message)
        try:
            path = spec_path(task.spec)
        except InvalidSpecError as error:
            raise _RefusedError("invalid_spec", str(error)) from error
        if task.task_path != path:
            message = f"the column task_path says {task.task_path}, but the spec would run {path}"
            raise _RefusedError("security_violation", message)
        if not allowlist.allows(self._settings.allowed_task_modules, path):
            message = f"{path} is not covered by the allowed task modules (--allowed-task-modules)"
            raise _RefusedError("security_violation", message)
        return payload

    def _launch(self, task: ClaimedTask, payload: bytes, attempt: Attempt) -> None:
        """Raises OSError, with nothing left behind, if there is no process or descriptor to be had."""
        settings = self._settings
        number = str(next(self._numbers))
        self._guard.ensure()
        self._orphans.adopt()
        children.forbid_core_dumps()
        oom_kills = self._oom.read()
        where, file, stdin = self._payload_road(number, payload)
        try:
            child = children.start(
                [settings.python_bin, "-m", settings.executor_module, *_identity(task), *where],
                {**self._environment, MARK_ENV: f"{self._mark}.{number}"},
                private_result=settings.executor_module == OUR_MODULE,
            )
        except OSError:
            _remove(file)
            raise
        # Registered before it is fed: no task runs that the guard does not know of.
        self._guard.add(child.pid)
        self._orphans.began(number, child.pid)
        self._running[number] = attempt

        def after_reaping() -> None:
            del self._running[number]
            self._orphans.ended(number)
            _remove(file)

        attempt.begin(
            child,
            stdin,
            Limits(
                time=_time_limit(task, settings),
                grace=settings.grace,
                result_bytes=settings.max_stdout_bytes,
            ),
            saw_oom_kill=lambda: self._oom.read() > oom_kills,
            before_reaping=lambda: self._guard.remove(child.pid),
            after_reaping=after_reaping,
        )

    def _payload_road(self, number: str, payload: bytes) -> tuple[list[str], Path | None, bytes]:
        """Give the arguments that say where the payload is, its file if it has one, and what goes to stdin."""
        match self._settings.payload_mode:
            case "file":
                self._ready_files()
                assert self._files is not None
                file = self._files.write(f"payload-{number}.json", payload)
                return ["--payload-file", str(file)], file, b""
            case "inline":
                return ["--payload-json", payload.decode()], None, b""
            case _:
                return ["--payload-stdin"], None, payload

    async def close(self) -> None:
        """Kill what still runs, wait for its end, and let go of guard, files and orphans."""
        attempts = list(self._running.values())
        for attempt in attempts:
            attempt.kill()
        await asyncio.gather(*(attempt.wait() for attempt in attempts))
        await self._orphans.close()
        await self._guard.close()
        if self._files is not None:
            self._files.close()
            self._files = None


def _identity(task: ClaimedTask) -> list[str]:
    return ["--result-id", str(task.result_id), "--attempt", str(task.attempts)]


def _time_limit(task: ClaimedTask, settings: ExecutorSettings) -> timedelta:
    if task.timeout_seconds <= 0:
        return settings.exec_timeout
    return min(timedelta(seconds=task.timeout_seconds), settings.exec_timeout)


def _remove(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)
