"""The types of the client, as mypy --strict and pyright see them: wrong calls are errors, results have their type."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.database import ROOT

PROGRAM = """
from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, assert_type

from reproq_listen import AsyncClient, Client, Task, TaskContext, TaskResult, chain, chord, group, task


@task(queue_name="mail", max_attempts=5, timeout=30, retry_on=(OSError,), discard_on=LookupError, unique_key="a")
def send_welcome(user_id: int, *, loud: bool = False) -> str:
    return "welcome"


@task
async def fetch(url: str) -> list[int]:
    return []


@task(takes_context=True)
def count(context: TaskContext, rows: list[str]) -> int:
    return len(rows)


@task(takes_context=True, priority=3)
async def count_later(context: TaskContext, rows: list[str]) -> int:
    return len(rows)


@task(queue="mail")  # error
def misspelled() -> None: ...


@task(max_attempts="3")  # error
def wrong_option() -> None: ...


@task(takes_context=True)  # error
def no_context(number: int) -> None: ...


def plain_calls(context: TaskContext) -> None:
    assert_type(send_welcome(3, loud=True), str)
    assert_type(count(context, []), int)
    send_welcome("x")  # error
    count([])  # error


def producers(client: Client) -> None:
    result = client.enqueue(send_welcome, 3, loud=True)
    assert_type(result, TaskResult[str])
    assert_type(result.wait(), str)
    assert_type(result.return_value, str)
    assert_type(client.enqueue(fetch, "https://a").wait(5), list[int])
    assert_type(client.enqueue(count, ["a"]).wait(), int)
    assert_type(client.enqueue(count_later, ["a"]).wait(), int)
    assert_type(client.enqueue(send_welcome.call(3)).wait(), str)
    assert_type(client.get_result(7, send_welcome).return_value, str)
    assert_type(client.get_result(7).return_value, Any)
    client.enqueue(send_welcome.using(priority=9, run_after=timedelta(minutes=5)), 3)
    client.enqueue_many([send_welcome.call(3), fetch.call("https://a")])
    client.enqueue(send_welcome, "x")  # error
    client.enqueue(send_welcome)  # error
    client.enqueue(send_welcome, 3, True)  # error
    client.enqueue(send_welcome, 3, lout=True)  # error
    client.enqueue(send_welcome.using(priority=9), "x")  # error
    client.enqueue(count, 3)  # error
    client.enqueue(len, "x")  # error
    send_welcome.call("x")  # error
    send_welcome.using(run_after=5)  # error
    send_welcome.using(retry_on=(OSError,))  # error
    wrong: int = result.wait()  # error


def workflows(client: Client) -> None:
    joined = client.enqueue(chord([fetch.call("a"), send_welcome.call(1)], count.call([])))
    assert_type(joined.result.wait(), int)
    assert_type(client.enqueue(chain(fetch.call("a"), count.call([]))).result, TaskResult[Any])
    assert_type(client.enqueue(group(fetch.call("a"))).result, None)
    chain(fetch)  # error
    chord([fetch.call("a")])  # error


async def later(client: AsyncClient) -> None:
    assert_type(await fetch("a"), list[int])
    assert_type(await (await client.enqueue(send_welcome, 3)).wait(), str)
    await client.enqueue(send_welcome, "x")  # error


def any_task(anything: Task[..., object]) -> None:
    print(anything.module_path)


any_task(send_welcome)
any_task(fetch)
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("types") / "program.py"
    file.write_text(PROGRAM)
    return file


EXPECTED = {number for number, line in enumerate(PROGRAM.splitlines(), start=1) if line.endswith("# error")}


def mistakes(found: dict[int, str]) -> str:
    """The lines where a checker says something else than the program."""
    lines = PROGRAM.splitlines()
    return "\n".join(f"{n}: {lines[n - 1]}: {found.get(n, 'no error')}" for n in sorted(found.keys() ^ EXPECTED))


def test_client_types_mypy(program: Path) -> None:
    """Errors where `# error` says so, and nowhere else."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(program.parent / "cache")]
    done = subprocess.run([*command, str(program)], cwd=ROOT, capture_output=True, text=True, check=False)
    found = {int(n): text for n, text in re.findall(r"program\.py:(\d+): error: (.*)", done.stdout)}
    assert mistakes(found) == "", done.stdout


def test_client_types_pyright(program: Path) -> None:
    """As for mypy."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {
        note["range"]["start"]["line"] + 1: note["message"]
        for note in json.loads(done.stdout)["generalDiagnostics"]
        if note["severity"] == "error"
    }
    assert mistakes(found) == "", found


def test_package_is_typed_for_users() -> None:
    """mypy reads the types of an installed package only with this file."""
    assert (ROOT / "reproq_listen" / "py.typed").exists()
