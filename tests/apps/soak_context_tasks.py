"""Tasks of the soak of transactions and steps. They kill their worker, or themselves, at a point that was drawn."""

from __future__ import annotations

import os
import random
import signal
from typing import Any, NoReturn

import psutil
import psycopg

from reproq_listen import TaskContext

POINTS = ("before", "begun", "written", "completed", "committed", "returned")
"""Of a task with a transaction: before it, inside before and after its write, between the statement that ends the task
and the commit, behind the commit, and after that."""


def kill(victim: str) -> NoReturn:
    """SIGKILL for this process, or for its worker: then the guard kills this process, too."""
    if victim == "worker":
        for parent in psutil.Process().parents():
            if "worker" in parent.cmdline():
                parent.kill()
                signal.pause()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class DyingConnection(psycopg.Connection[Any]):
    """Kills when the statement that ends the task has been executed, and is not committed yet."""

    victim = ""

    def execute(self, query: Any, *args: Any, **more: Any) -> psycopg.Cursor[Any]:
        cursor = super().execute(query, *args, **more)
        if self.victim and "reproq_complete_one" in str(query):
            kill(self.victim)
        return cursor


def once(context: TaskContext, point: str, victim: str) -> None:
    """One effect together with its end. On the first attempt `victim` dies at `point`."""

    def at(reached: str) -> None:
        if victim and context.attempt == 1 and point == reached:
            kill(victim)

    at("before")
    with DyingConnection.connect(os.environ["DATABASE_URL"]) as connection:
        if context.attempt == 1 and point == "completed":
            connection.victim = victim
        with context.transaction(connection) as done:
            at("begun")
            connection.execute("insert into effects (result_id) values (%s)", [context.result_id])
            at("written")
            done.result = context.attempt
        at("committed")
    at("returned")


def ten_steps(context: TaskContext) -> int:
    """Odd steps write their effect with their value; even ones tell a table that they ran, and are stored after that.
    Dies now and then."""
    dice = random.Random()
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)

    def effect(number: int) -> int:
        connection.execute("insert into effects (result_id, step) values (%s, %s)", [context.result_id, number])
        if dice.random() < 0.02:
            kill("task")
        return number

    def run(number: int) -> int:
        connection.execute("insert into runs (result_id, step) values (%s, %s)", [context.result_id, number])
        return number

    total = 0
    for number in range(1, 11):
        if number % 2:
            total += context.step(f"step {number}", effect, number, connection=connection)
        else:
            total += context.step(f"step {number}", run, number)
        if dice.random() < 0.02:
            kill("task")
    return total
