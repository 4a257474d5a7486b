"""Checks of what runs tasks on this host: the Python, the executor's module, and the modules of the tasks."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from reproq_listen.doctor.findings import Finding, error, ok, warning

_LIMIT = 30.0  # seconds to start a Python and import a module
_MAX_SAID = 300  # characters of what went wrong

# Run in the Python of the tasks. Prints one JSON object; modules of tasks are looked for, not imported.
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


class _Report(Struct):
    problem: str
    absent: list[str]


async def executor(python_bin: str, module: str, allowed: Sequence[str]) -> list[Finding]:
    """The Python starts, imports the executor's module, and finds the modules whose tasks are allowed."""
    if shutil.which(python_bin) is None:
        cure = "name a Python with --python-bin"
        return [error("executor", f"there is no program {python_bin}", "no task can be started", cure)]
    modules = [name.removesuffix(".") for name in allowed if name != "*"]
    report = await _probe(python_bin, module, modules)
    if isinstance(report, Finding):
        return [report]
    if report.problem:
        return [
            error(
                "executor",
                f"{python_bin} cannot import {module}: {report.problem[:_MAX_SAID]}",
                "no task can be started",
                f"install what it belongs to for that Python ({python_bin} -m pip install ...), start in the folder "
                "that holds it, or name another with --executor-module or --python-bin",
            )
        ]
    return [ok("executor", f"{python_bin} imports {module}"), allow_list(allowed, report.absent)]


def allow_list(allowed: Sequence[str], absent: Sequence[str]) -> Finding:
    """Some tasks may run, not all, and their modules can be found from here."""
    flag = "--allowed-task-modules (or ALLOWED_TASK_MODULES)"
    if "*" in allowed:
        return warning(
            "allow_list",
            "every module's functions may run as tasks",
            "whoever can enqueue can run any code that Python can import, os.system included",
            f"name the modules of your tasks: {flag}",
        )
    if not allowed:
        return error("allow_list", "no module is allowed", "every task is refused", f"name some: {flag}")
    if absent:
        return warning(
            "allow_list",
            f"not found from this folder: {', '.join(absent)}",
            "tasks of these modules fail here",
            f"start in the folder that holds them, set PYTHONPATH, or correct {flag}",
        )
    return ok("allow_list", f"allowed: {', '.join(allowed)}")


async def _probe(python_bin: str, module: str, modules: Sequence[str]) -> _Report | Finding:
    process = await asyncio.create_subprocess_exec(
        *(python_bin, "-c", _PROBE, module, *modules),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LIMIT):
            output, said = await process.communicate()
    except TimeoutError:
        cure = f"find out what it waits for: {python_bin} -X importtime -c 'import {module}'"
        return error(
            "executor", f"importing {module} takes more than {_LIMIT:g} s", "tasks start slowly or never", cure
        )
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return msgspec.json.decode(output.rstrip().rpartition(b"\n")[2], type=_Report)
    except msgspec.MsgspecError:
        what = f"{python_bin} ended with status {process.returncode}: {said.decode(errors='replace')[-_MAX_SAID:]}"
        return error("executor", what, "no task can be started", "name a working Python with --python-bin")
