"""The tasks of `reproq-listen demo`: plain functions, as an application would write them."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Protocol


class Context(Protocol):
    """What a task that takes a context may rely on here."""

    attempt: int


def digest(path: str) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def count_words(path: str) -> int:
    """Words of a text file."""
    return len(Path(path).read_text(encoding="utf-8").split())


def fail_once(context: Context) -> str:
    """Fails on the first attempt, as a flaky network would make it."""
    if context.attempt == 1:
        raise ConnectionError("the first attempt fails on purpose")
    return f"worked on attempt {context.attempt}"


def fail_always() -> None:
    """Fails whenever it is tried."""
    raise ValueError("this task always fails, on purpose")


def be_on_time(due: float) -> str:
    """Says how late it began. `due`: seconds since the epoch."""
    return f"began {time.time() - due:.2f} s after it was due"


def hold_the_key(seconds: float) -> list[float]:
    """Works for a while; of two tasks with one lock key, never two at a time. Gives begin and end."""
    begin = time.time()
    time.sleep(seconds)
    return [begin, time.time()]


def run_for_ever() -> None:
    """Runs until it is cancelled."""
    while True:
        time.sleep(60)


def nothing(number: int) -> int:
    """Does nothing: the task of `reproq-listen torture`."""
    return number
