"""What is looked at before anything runs: the settings once, and each task before its child is given it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import timedelta

from reproq_listen.errors import SettingError
from reproq_listen.model import ClaimedTask, ExecutorSettings, TaskError
from reproq_listen.protocol import allowlist
from reproq_listen.protocol.envelope import InvalidSpecError, clean_text, spec_path

_CHECK_SECONDS = 30.0
_MAX_KNOWN = 10_000
_FIND_MODULE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class RefusedError(Exception):
    """This task is not started; carries the error of its outcome."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.error = TaskError(kind=kind, message=clean_text(message))


def admit(task: ClaimedTask, settings: ExecutorSettings, known: set[str] | None = None) -> bytes:
    """Give the payload of a task that may run. Raises RefusedError.

    `known`: paths that these settings allow, which grows; looking there first is cheaper.
    """
    payload = task.spec.encode(errors="surrogatepass")
    limit = settings.max_payload_bytes
    if len(payload) > limit:
        message = f"the spec has {len(payload)} bytes; the limit is {limit} (max_payload_bytes)"
        raise RefusedError("payload_too_large", message)
    try:
        path = spec_path(task.spec)
    except InvalidSpecError as error:
        raise RefusedError("invalid_spec", str(error)) from error
    if task.task_path != path:
        message = f"the column task_path says {task.task_path}, but the spec would run {path}"
        raise RefusedError("security_violation", message)
    if known is None or path not in known:
        if not allowlist.allows(settings.allowed_task_modules, path):
            message = f"{path} is not covered by the allowed task modules (--allowed-task-modules)"
            raise RefusedError("security_violation", message)
        if known is not None and len(known) < _MAX_KNOWN:
            known.add(path)
    return payload


def time_limit(task: ClaimedTask, settings: ExecutorSettings) -> timedelta:
    """How long this task may run."""
    if task.timeout_seconds <= 0:
        return settings.exec_timeout
    return min(timedelta(seconds=task.timeout_seconds), settings.exec_timeout)


def check_settings(settings: ExecutorSettings) -> None:
    """Look at what would make every task fail. Raises SettingError that names the cure."""
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


def check_module(settings: ExecutorSettings, environment: Mapping[str, str]) -> None:
    """Start the configured Python once, to see that it finds the executor module. Raises SettingError."""
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
