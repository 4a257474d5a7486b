"""A pool without a database: tasks in, outcomes out."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from msgspec import structs

from reproq_listen.executors.pool.attempt import PoolAttempt
from reproq_listen.executors.pool.executor import PoolExecutor
from reproq_listen.model import CapturedOutput, ClaimedTask, ExecutorSettings, Outcome
from tests.support.database import ROOT
from tests.support.executing import claimed

MODULE = "tests.apps.pool_tasks"
T = TypeVar("T")
_numbers = itertools.count(1)


def task(
    name: str, *args: Any, module: str = MODULE, timeout_seconds: int = 60, lost_count: int = 0, **spec: Any
) -> ClaimedTask:
    """A task of tests/apps/pool_tasks.py, or another module. `spec` adds to its spec or replaces parts of it."""
    path = f"{module}.{name}"
    text = json.dumps({"v": 1, "task_path": path, "args": args, "kwargs": {}, "queue_name": "default"} | spec)
    return structs.replace(claimed(text, path, timeout_seconds), result_id=next(_numbers), lost_count=lost_count)


class Running:
    """An attempt, and its outcome when it is there."""

    def __init__(self, pool: PoolExecutor, what: ClaimedTask) -> None:
        self.task = what
        self.ends = 0
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.starts = 0
        self.attempt: PoolAttempt = pool.submit(what, self._ended, self._started)

    def _started(self) -> None:
        self.starts += 1

    def _ended(self, outcome: Outcome) -> None:
        self.ends += 1
        assert self.ends == 1, "an attempt has ended twice"
        self._outcome.set_result(outcome)

    @property
    def is_over(self) -> bool:
        return self._outcome.done()

    async def wait(self, seconds: float = 15) -> Outcome:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(self._outcome)


@contextlib.asynccontextmanager
async def pool(
    concurrency: int = 2,
    warnings: list[str] | None = None,
    metadata: list[tuple[ClaimedTask, bytes]] | None = None,
    output: list[tuple[int, CapturedOutput]] | None = None,
    **changes: Any,
) -> AsyncIterator[PoolExecutor]:
    """A pool whose children find the tests.

    It must not warn, unless a list is given. `metadata` gets what tasks save, `output` what belongs to no known task.
    """
    unexpected: list[str] = []
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    values: dict[str, Any] = {
        "python_bin": sys.executable,
        "allowed_task_modules": (MODULE,),
        "grace": timedelta(seconds=1),
        "preload": (MODULE,),
    }
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        made = PoolExecutor(
            ExecutorSettings(**(values | changes)),
            concurrency,
            (unexpected if warnings is None else warnings).append,
            on_metadata=lambda what, body: metadata.append((what, body)) if metadata is not None else None,
            on_child_output=lambda pid, came: output.append((pid, came)) if output is not None else None,
            on_pause=lambda why, _: (unexpected if warnings is None else warnings).append(why),
        )
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    await made.open()
    try:
        yield made
    finally:
        await made.close()
    assert unexpected == []
    assert raised == []


def in_loop(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


async def all_of(pool: PoolExecutor, tasks: Sequence[ClaimedTask]) -> list[Outcome]:
    """Submit all at once, and wait for all. What a busy machine gives back is submitted again, as by the database."""
    running = [Running(pool, what) for what in tasks]
    outcomes = [await one.wait() for one in running]
    given_back = [number for number, outcome in enumerate(outcomes) if is_given_back(outcome)]
    if given_back:
        again = await all_of(pool, [tasks[number] for number in given_back])
        for number, outcome in zip(given_back, again, strict=True):
            outcomes[number] = outcome
    return outcomes


def is_given_back(outcome: Outcome) -> bool:
    """Whether the task has not been started, because no child was free for it soon."""
    return outcome.error is not None and outcome.error.kind == "shutdown"


async def run(pool: PoolExecutor, name: str, *args: Any, **options: Any) -> Outcome:
    return await Running(pool, task(name, *args, **options)).wait()


async def value(pool: PoolExecutor, name: str, *args: Any, **options: Any) -> Any:
    outcome = await run(pool, name, *args, **options)
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return json.loads(outcome.result)


async def learn(pool: PoolExecutor, name: str, *args: Any, times: int = 40) -> None:
    """Let the pool learn that tasks of this path are short."""
    for _ in range(times):
        await run(pool, name, *args)
