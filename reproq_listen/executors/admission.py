"""What is checked before anything runs: the settings once, and each task before a child gets it."""

import shutil
import subprocess
from collections.abc import Mapping
from datetime import timedelta

from reproq_listen.errors import SettingError
from reproq_listen.model import ClaimedTask, ExecutorSettings, TaskError
from reproq_listen.protocol import allowlist
from reproq_listen.protocol.envelope import InvalidSpecError, clean_text, spec_path

_CHECK_SECONDS = 30.0
_MAX_KNOWN_PATHS = 10_000
_FIND_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class NotAdmittedError(Exception):
    """This task must not be started; `error` is the error of its outcome."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.error = TaskError(kind=kind, message=clean_text(message))


def admit(task: ClaimedTask, settings: ExecutorSettings, known_paths: set[str] | None = None) -> bytes:
    """Give the payload of a task that may run. Raises NotAdmittedError.

    `known_paths`: paths that these settings allow. It saves checks, and is added to.
    """
    payload = task.spec.encode(errors="surrogatepass")
    limit = settings.max_payload_bytes
    if len(payload) > limit:
        message = f"the spec has {len(payload)} bytes; the limit is {limit} (max_payload_bytes)"
        raise NotAdmittedError("payload_too_large", message)
    try:
        path = spec_path(task.spec)
    except InvalidSpecError as error:
        raise NotAdmittedError("invalid_spec", str(error)) from error
    if task.task_path != path:
        message = f"the column task_path is {task.task_path}, but the spec would run {path}"
        raise NotAdmittedError("security_violation", message)
    if known_paths is None or path not in known_paths:
        if not allowlist.allows(settings.allowed_task_modules, path):
            message = f"{path} is not covered by the allowed task modules (--allowed-task-modules)"
            raise NotAdmittedError("security_violation", message)
        if known_paths is not None and len(known_paths) < _MAX_KNOWN_PATHS:
            known_paths.add(path)
    return payload


def time_limit(task: ClaimedTask, exec_timeout: timedelta) -> timedelta:
    """Give the time that this task may run: its own timeout, at most `exec_timeout`."""
    if task.timeout_seconds <= 0:
        return exec_timeout
    return min(timedelta(seconds=task.timeout_seconds), exec_timeout)


def check_settings(settings: ExecutorSettings) -> None:
    """Check what would make every task fail. Raises SettingError that names the remedy."""
    try:
        allowlist.check_entries(settings.allowed_task_modules)
    except ValueError as error:
        raise SettingError(f"--allowed-task-modules: {error}") from None
    if shutil.which(settings.python_bin) is None:
        raise SettingError(
            f"--python-bin {settings.python_bin}: there is no such program, or it may not be executed; "
            "give the path of the Python that has your application installed"
        )


def check_module(settings: ExecutorSettings, environment: Mapping[str, str]) -> None:
    """Start the configured Python once, to check that it finds the executor module. Raises SettingError."""
    arguments = [settings.python_bin, "-c", _FIND_MODULE, settings.executor_module]
    try:
        found = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingError(f"--python-bin {settings.python_bin} cannot be run: {error}") from None
    if found.returncode != 0:
        lines = found.stderr.decode(errors="replace").strip().splitlines()
        why = f" ({clean_text(lines[-1], 300)})" if lines else ""
        raise SettingError(
            f"--executor-module {settings.executor_module}: {settings.python_bin} cannot find "
            f"this module{why}; install it there, or give another --python-bin"
        )
