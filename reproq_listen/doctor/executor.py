"""Checks of what runs tasks on this host: the Python, the executor module, and the modules of the tasks."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reproq_listen.doctor.findings import Finding, error, ok, warning

_LIMIT = 30.0  # seconds to start a Python and import a module
_MAX_TEXT = 300  # characters of an error message

# Runs in the Python of the tasks and prints one JSON object. The modules of tasks are searched, not imported.
_PROBE = """
import importlib, importlib.util, json, sys
report = {"problem": "", "absent": []}
try:
    importlib.import_module(sys.argv[1])
except BaseException as error:
    report["problem"] = f"{type(error).__name__}: {error}"
for name in sys.argv[2:]:
    try:
        found = importlib.util.find_spec(name)
    except Exception:
        found = None
    if found is None:
        report["absent"].append(name)
print("\\n" + json.dumps(report))
"""


class _ProbeResult(Struct):
    problem: str
    absent: list[str]


async def executor(python_bin: str, module: str, allowed: Sequence[str]) -> list[Finding]:
    """The Python starts, imports the executor module, and finds the modules of allowed tasks."""
    if shutil.which(python_bin) is None:
        remedy = "name a Python with --python-bin"
        return [error("executor", f"there is no program {python_bin}", "no task can be started", remedy)]
    modules = [name.removesuffix(".") for name in allowed if name != "*"]
    report = await _probe(python_bin, module, modules)
    if isinstance(report, Finding):
        return [report]
    if report.problem:
        return [
            error(
                "executor",
                f"{python_bin} cannot import {module}: {report.problem[:_MAX_TEXT]}",
                "no task can be started",
                f"install its package for that Python ({python_bin} -m pip install ...), start in the folder that "
                "contains it, or name another one with --executor-module or --python-bin",
            )
        ]
    return [ok("executor", f"{python_bin} imports {module}"), allow_list(allowed, report.absent)]


def allow_list(allowed: Sequence[str], absent: Sequence[str]) -> Finding:
    """Some modules are allowed, not all, and they are found from here."""
    flag = "--allowed-task-modules (or ALLOWED_TASK_MODULES)"
    if "*" in allowed:
        return warning(
            "allow_list",
            "functions of all modules may run as tasks",
            "a role that can enqueue can run any function that Python can import, os.system included",
            f"name the modules of your tasks: {flag}",
        )
    if not allowed:
        return error("allow_list", "no module is allowed", "every task is refused", f"name some: {flag}")
    if absent:
        return warning(
            "allow_list",
            f"modules not found from this folder: {', '.join(absent)}",
            "tasks of these modules fail here",
            f"start in the folder that contains them, set PYTHONPATH, or correct {flag}",
        )
    return ok("allow_list", f"allowed: {', '.join(allowed)}")


async def _probe(python_bin: str, module: str, modules: Sequence[str]) -> _ProbeResult | Finding:
    process = await asyncio.create_subprocess_exec(
        *(python_bin, "-c", _PROBE, module, *modules),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LIMIT):
            output, errors = await process.communicate()
    except TimeoutError:
        remedy = f"find what it waits for: {python_bin} -X importtime -c 'import {module}'"
        return error(
            "executor", f"importing {module} takes more than {_LIMIT:g} s", "tasks start slowly or never", remedy
        )
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(output.rstrip().rpartition(b"\n")[2], type=_ProbeResult)
    except msgspec.MsgspecError:
        what = f"{python_bin} ended with status {process.returncode}: {errors.decode(errors='replace')[-_MAX_TEXT:]}"
        return error("executor", what, "no task can be started", "name a working Python with --python-bin")
