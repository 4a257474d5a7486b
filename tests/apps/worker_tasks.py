"""Tasks that the worker tests run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reproq_listen import Discard, Retry, Snooze, TaskContext, Throttled


def add(a: int, b: int) -> int:
    return a + b


def fail() -> None:
    raise ValueError("on purpose")


def fail_until(path: str, attempts: int) -> int:
    """Fails in its first attempts; `path` counts them."""
    tries = Path(path)
    with tries.open("a") as file:
        file.write("x")
    if tries.stat().st_size < attempts:
        raise ValueError("not yet")
    return tries.stat().st_size


def note_and_sleep(path: str, seconds: float) -> str:
    """Writes its pid as a line of `path`, then takes its time."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return "slept"


def note_and_resist(path: str, seconds: float) -> str:
    """As `note_and_sleep`, and ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return note_and_sleep(path, seconds)


def say(text: str) -> str:
    return text


def say_on_both(out: str, err: str) -> None:
    print(out)
    print(err, file=sys.stderr)


def die() -> None:
    """Ends without an answer."""
    os._exit(3)


def nul() -> str:
    return "a\0b"


def flood(mebibytes: int) -> str:
    """Writes `mebibytes` to both standard streams."""
    block = "x" * (1 << 20)
    for _ in range(mebibytes):
        sys.stdout.write(block)
        sys.stderr.write(block)
    return "flooded"


def spawn_child_and_sleep(path: str, seconds: float) -> None:
    """Has a grandchild that sleeps as well; both pids go to `path`."""
    child = subprocess.Popen(["sleep", str(seconds)])
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n{child.pid}\n")
    time.sleep(seconds)


def kill_the_worker(seconds: float) -> None:
    """What no supervision survives."""
    import psutil

    worker = next(each for each in psutil.Process().parents() if "reproq_listen" in each.cmdline())
    time.sleep(seconds)
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(600)


def report_progress(context: TaskContext, path: str) -> str:
    """Saves progress, waits until `path` exists, and saves more just before its end."""
    context.progress(0.5, "half")
    context.save_metadata({"rows": 10})
    while not Path(path).exists():
        time.sleep(0.01)
    context.progress(1.0, "all")
    return "reported"


def report_twice(context: TaskContext) -> str:
    """Is over before the first word can have reached its row."""
    context.progress(0.5, "half")
    context.save_metadata({"rows": 7})
    return "reported"


def report_what_cannot_be_stored(context: TaskContext) -> str:
    context.save_metadata({"name": "a\0b"})
    context.save_metadata({"name": "fine"})
    return "reported"


def ask_once(path: str, kind: str, seconds: float) -> str:
    """Asks for something at its first start, as `path` tells, and then returns."""
    if Path(path).exists():
        return "done"
    Path(path).touch()
    match kind:
        case "retry":
            try:
                raise ConnectionError("no route")
            except ConnectionError as error:
                raise Retry("the shop is closed", after=timedelta(seconds=seconds)) from error
        case "snooze":
            raise Snooze(until=datetime.now(UTC) + timedelta(seconds=seconds))
        case "throttle":
            raise Throttled(after=seconds)
    raise Discard("nothing to do")


def sum_results(context: TaskContext) -> dict[str, int]:
    """The callback of a chord, or a step of a chain."""
    results = context.results()
    return {"count": len(results), "sum": sum(results), "first": results[0], "last": results[-1]}


def text_of(size: int) -> str:
    return "x" * size


def sizes_of_results(context: TaskContext, max_bytes: int) -> list[int]:
    return [len(result) for result in context.results(max_bytes)]


def look_at_context(context: TaskContext) -> dict[str, object]:
    """What a task can learn about its attempt."""
    return {
        "result_id": context.result_id,
        "attempt": context.attempt,
        "max_attempts": context.max_attempts,
        "is_last_attempt": context.is_last_attempt,
        "queue_name": context.queue_name,
        "task_path": context.task_path,
        "seconds": (context.deadline - datetime.now(UTC)).total_seconds(),
    }
