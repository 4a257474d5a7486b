"""Tasks that end in their own transaction, and tasks of durable steps. `DSN`: the database, in their environment."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from reproq_listen import TaskContext, task


def connect() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["DATABASE_URL"])


def note(path: str, line: str) -> int:
    """Append a line; the number of lines."""
    with Path(path).open("a+") as file:
        file.write(f"{line}\n")
        file.seek(0)
        return len(file.readlines())


def complete_inside(context: TaskContext, how: str, path: str) -> str:
    """Writes one effect, and completes with it. `how`: what goes wrong, and where."""
    with psycopg.connect(os.environ["DATABASE_URL"], row_factory=dict_row) as connection:
        with context.transaction(connection) as done:
            connection.execute("insert into effects (result_id) values (%s)", [context.result_id])
            done.result = {"attempt": context.attempt}
            if how == "raise inside":
                raise ValueError("inside")
            if how == "kill inside" and context.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "lost" and note(path, "lost") == 1:
                with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as other:
                    other.execute(
                        "update task_runs set lease_token = gen_random_uuid(), revision = revision + 1"
                        " where result_id = %s",
                        [context.result_id],
                    )
        if how == "raise after":
            raise ValueError("after the commit")
        if how == "kill after":
            os.kill(os.getpid(), signal.SIGKILL)
    return "not stored"


async def complete_inside_async(context: TaskContext) -> None:
    connection = await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True)
    async with connection, context.transaction(connection) as done:
        await connection.execute("insert into effects (result_id) values (%s)", [context.result_id])
        done.result = "async"


def complete_in_the_wrong_way(context: TaskContext) -> list[str]:
    """A connection with a transaction, no connection, a second time."""
    problems = []
    with connect() as connection:
        connection.execute("select")
        for wrong in (connection, object()):
            try:
                with context.transaction(wrong):
                    pass
            except (ValueError, TypeError) as error:
                problems.append(type(error).__name__)
    return problems


def three_steps(context: TaskContext, path: str, dies_after: int = 0) -> list[int]:
    """Each step notes that it ran. The first attempt dies after so many."""
    values = []
    for number in range(1, 4):
        values.append(context.step(f"step {number}", note, path, str(number)))
        if context.attempt == 1 and number == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
    return values


@task
async def double(number: int) -> int:
    return number * 2


async def async_steps(context: TaskContext, path: str) -> list[Any]:
    async def wait(number: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        note(path, "async")
        return number, number

    values = [await context.step("first", wait, 1), context.step("second", note, path, "plain")]
    values.append(await context.step("third", double, 5))
    if context.attempt == 1:
        raise ValueError("again")
    return values


def steps_in_transactions(context: TaskContext) -> int:
    """Each step writes its effect with its value; the first attempt dies inside the third."""

    def effect(connection: psycopg.Connection[Any], number: int) -> int:
        connection.execute("insert into effects (result_id, step) values (%s, %s)", [context.result_id, number])
        if context.attempt == 1 and number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with connect() as connection:
        return sum(context.step(f"s{n}", effect, connection, n, connection=connection) for n in range(1, 6))


def wrong_steps(context: TaskContext) -> list[str]:
    """The same name twice, no name, no JSON, too large."""
    problems = []
    context.step("twice", int)
    for name, value in (("twice", 1), ("", 1), ("object", object()), ("large", "x" * (1 << 20)), ("nul", "\0")):
        try:
            context.step(name, lambda value=value: value)
        except Exception as error:  # noqa: BLE001 - what it is, is the result
            problems.append(f"{type(error).__name__}: {error}"[:60])
    return problems


def enqueue_others(context: TaskContext, count: int, fails: bool = False) -> int:
    for number in range(count):
        context.enqueue({"task_path": f"{__name__}.leaf", "args": [number]})
    if fails:
        raise ValueError("and none of them")
    return count


def enqueue_badly(context: TaskContext) -> None:
    context.enqueue({"task_path": "", "args": 5})


def enqueue_in_transaction(context: TaskContext) -> None:
    context.enqueue({"task_path": f"{__name__}.leaf", "args": [7]})
    with connect() as connection, context.transaction(connection) as done:
        done.result = "all at once"


def leaf(number: int) -> int:
    return number


def database_url() -> str:
    return os.environ["DATABASE_URL"]
