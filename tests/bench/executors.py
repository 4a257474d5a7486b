"""What isolation costs: tasks a second of `fork` and of the least that could do its job, and what output costs.

No database: rows, claims and completions are measured elsewhere. All in one run, in turns, since load comes in bursts.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from reproq_listen.executors.per_task.executor import PerTaskExecutor
from reproq_listen.executors.per_task.fork import fork_executor
from reproq_listen.executors.per_task.spawn import spawn_executor
from reproq_listen.model import ExecutorSettings
from tests.bench.measuring import Bench, Bound, Report, until_it_holds
from tests.support.database import ROOT
from tests.support.executing import claimed

TASKS = "tests.apps.bench_tasks"
IMPORTS: dict[str, tuple[str, ...]] = {
    "json": ("json",),
    "psycopg": ("asyncio", "psycopg"),
    "django": ("tests.bench.shop.tasks",),
}
ROUNDS = 8
SECONDS = 0.75  # of each in each round: load comes in bursts, and should hit all alike
CONCURRENCY = 4


def executors(_: Bench) -> Report:
    """No-op tasks a second, four at a time, with three sets of imports: `fork` at least three quarters of a bare
    forkserver (bare_forkserver.py), and with Django 50 times `spawn`."""

    def measure() -> Report:
        rates: dict[str, dict[str, float]] = {}
        for name, modules in IMPORTS.items():
            with _environment(with_django=name == "django"):
                rates[name] = asyncio.run(_rates(modules, with_spawn=name == "django"))
        django = rates["django"]
        bounds = [
            Bound(f"bare / fork ({name})", found["bare"] / found["fork"], 1 / 0.75) for name, found in rates.items()
        ]
        return Report(
            numbers={
                "tasks_per_second": {name: {k: round(v, 1) for k, v in found.items()} for name, found in rates.items()},
                "fork_of_bare": {name: round(found["fork"] / found["bare"], 2) for name, found in rates.items()},
                "fork_of_spawn": round(django["fork"] / django["spawn"], 1),
            },
            bounds=[*bounds, Bound("50 x rate of spawn / rate of fork", 50 * django["spawn"] / django["fork"], 1.0)],
        )

    return until_it_holds(measure)


def output(_: Bench) -> Report:
    """64 MiB of output, half on each stream: what this process grows by while it drains it."""

    def measure() -> Report:
        grown = {mode: asyncio.run(_growth(mode)) for mode in ("spawn", "fork")}
        return Report(
            numbers={"grown_mib": {mode: round(size / (1 << 20), 1) for mode, size in grown.items()}},
            bounds=[Bound(f"MiB grown with {mode}", size / (1 << 20), 16) for mode, size in grown.items()],
        )

    return until_it_holds(measure)


@contextmanager
def _environment(*, with_django: bool) -> Iterator[None]:
    """Children find the tests, and the Django project if it is wanted."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(ROOT)
    if with_django:
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.shop.settings"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _made(mode: str, **changes: Any) -> PerTaskExecutor:
    made = ExecutorSettings(python_bin=sys.executable, allowed_task_modules=("tests",), **changes)
    return spawn_executor(made, print) if mode == "spawn" else fork_executor(made, print)


async def _rates(modules: tuple[str, ...], *, with_spawn: bool) -> dict[str, float]:
    """The median tasks a second of each."""
    rates: dict[str, list[float]] = {"bare": [], "fork": []}
    if with_spawn:
        rates["spawn"] = []
    running = {
        mode: _made(mode, preload=(TASKS, *modules), children_ahead=CONCURRENCY) for mode in rates if mode != "bare"
    }
    for executor in running.values():
        await executor.open()
    try:
        for _ in range(ROUNDS):
            rates["bare"].append(await asyncio.to_thread(_bare_rate, modules))
            for mode, executor in running.items():
                rates[mode].append(await _rate(executor))
    finally:
        for executor in running.values():
            await executor.close()
    return {name: statistics.median(found) for name, found in rates.items()}


def _bare_rate(modules: tuple[str, ...]) -> float:
    arguments = [sys.executable, "-m", "tests.bench.bare_forkserver", str(SECONDS), TASKS, *modules]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, check=True, timeout=60)
    rate: float = json.loads(done.stdout)["rate"]
    return rate


async def _rate(executor: PerTaskExecutor) -> float:
    path = f"{TASKS}.nothing"
    spec = json.dumps({"v": 1, "task_path": path, "args": [], "kwargs": {}})
    began = time.monotonic()
    counts = await asyncio.gather(*(_run_for(executor, spec, path, began) for _ in range(CONCURRENCY)))
    return sum(counts) / (time.monotonic() - began)


async def _run_for(executor: PerTaskExecutor, spec: str, path: str, began: float) -> int:
    count = 0
    while time.monotonic() - began < SECONDS:
        attempt = await executor.start(claimed(spec, path))
        outcome = await attempt.wait()
        assert outcome.error is None, outcome
        count += 1
    return count


async def _growth(mode: str) -> int:
    """Bytes by which the peak of our resident memory grows while one task floods both streams."""
    os.environ["PYTHONPATH"] = str(ROOT)
    executor = _made(mode, exec_timeout=timedelta(minutes=1))
    path = "tests.apps.tasks.flood"
    try:
        await executor.open()
        for mebibytes in (1, 32):  # the first is for what any task takes once
            before = _reset_peak()
            spec = json.dumps({"v": 1, "task_path": path, "args": [mebibytes], "kwargs": {}})
            outcome = await (await executor.start(claimed(spec, path))).wait()
            assert outcome.error is None, outcome
    finally:
        await executor.close()
    return _peak() - before


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmHWM")
