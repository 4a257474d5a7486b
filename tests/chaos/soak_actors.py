"""Those who work with the database while it is broken: a producer and an operator."""

from __future__ import annotations

import random
import threading
import time
from typing import Any, LiteralString

import psycopg
from psycopg.types.json import Jsonb

from tests.chaos.soak_record import LIMIT, QUEUES, TASKS, Called, Soak
from tests.support.database import Database

TASKS_A_SECOND = 25.0
_STALE: LiteralString = """
    select t.result_id, h.new_token
    from task_runs t join soak_history h on h.result_id = t.result_id and h.new_token <> t.lease_token
    where t.status = 'RUNNING' limit 10
"""


def some_tasks(soak: Soak, dice: random.Random, count: int) -> list[dict[str, Any]]:
    """Tasks of every kind, as reproq_enqueue_many takes them."""
    return [_some_task(soak, dice) for _ in range(count)]


def _some_task(soak: Soak, dice: random.Random) -> dict[str, Any]:
    kinds = ("work", "resist", "fail_first", "crash_first", "fail")
    function = dice.choices(kinds, weights=[80, 13, 3, 2, 2])[0]
    seconds = dice.uniform(1, 3) if dice.random() < 0.05 else dice.uniform(0, 0.12)
    number = len(soak.asked)
    task: dict[str, Any] = {
        "task_path": f"{TASKS}.{function}",
        "args": [str(soak.folder), round(seconds, 3), number],
        "queue_name": dice.choice(QUEUES),
        "priority": dice.choice([0, 0, 1, 5]),
        "max_attempts": 1 if dice.random() < 0.05 else 3 if function == "fail" else 20,
        "timeout_seconds": 5,
        "backoff_seconds": 0.05,
        "takes_context": True,
        "dedupe": False,
    }
    if dice.random() < 0.20:
        task["lock_key"] = dice.choice("abcdefgh")
    if dice.random() < 0.14:
        task |= {"concurrency_key": dice.choice("xyz"), "concurrency_limit": LIMIT}
    soak.asked.append(task)
    return task


class Actor(threading.Thread):
    """A thread with a session that is opened again after every error; its own errors end the run."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._session: psycopg.Connection | None = None
        self.error: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            self.act()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.error = error

    def act(self) -> None:
        raise NotImplementedError

    def rows(self, query: LiteralString, *args: object) -> list[Any] | None:
        """The rows of one statement, or None if its fate is unknown or it had no effect."""
        try:
            if self._session is None:
                self._session = self._database.connect()
            cursor = self._session.execute(query, args)
            return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:  # away, or a lock timeout
            self.forget()
            return None

    def forget(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


class Producer(Actor):
    """Enqueues `tasks` tasks at an even pace: single ones, chains and chords. Unanswered calls are not repeated."""

    def __init__(self, database: Database, soak: Soak, seed: int, tasks: int) -> None:
        super().__init__(database)
        self._soak = soak
        self._dice = random.Random(f"tasks {seed}")
        self._tasks = tasks

    def act(self) -> None:
        start = time.monotonic()
        while len(self._soak.asked) < self._tasks:
            due = start + len(self._soak.asked) / TASKS_A_SECOND
            if self.stop.wait(max(0.0, due - time.monotonic())):
                break
            self._some()
        self.forget()

    def _some(self) -> None:
        chance = self._dice.random()
        tasks = some_tasks(self._soak, self._dice, self._dice.randint(2, 5))
        if chance < 0.10:
            ids = self._ids("select result_id from reproq_chain(%s) order by ordinal", Jsonb(tasks))
            self._soak.chains += [ids] if ids else []
        elif chance < 0.17:
            *members, callback = tasks
            ids = self._ids(
                "select result_id from reproq_chord(%s, %s) order by ordinal = 0, ordinal",
                Jsonb(members),
                Jsonb(callback),
            )
            self._soak.chords += [(ids[:-1], ids[-1])] if ids else []
        else:
            ids = self._ids("select result_id from reproq_enqueue_many(%s) order by ordinal", Jsonb(tasks))
        self._soak.acknowledged |= dict(zip(ids, tasks, strict=True)) if ids else {}

    def _ids(self, query: LiteralString, *args: object) -> list[int]:
        return [row[0] for row in self.rows(query, *args) or []]


class Operator(Actor):
    """Pauses and resumes, cancels, retries what failed, prunes, reclaims; and speaks for attempts that are over."""

    def __init__(self, database: Database, soak: Soak, seed: int) -> None:
        super().__init__(database)
        self._soak = soak
        self._dice = random.Random(f"operator {seed}")

    def act(self) -> None:
        while not self.stop.wait(self._dice.uniform(0.1, 0.5)):
            action = self._dice.randrange(13)
            ids = list(self._soak.acknowledged)
            if action < 4 and ids:
                self._call("cancel", self._dice.choice(ids[-40:]), "select reproq_cancel(%s)")
            elif action < 5:
                queue = self._dice.choice(QUEUES)
                self._call("pause", queue, "select reproq_pause(%s)")
                self.stop.wait(1.2)
                self._resume(queue)
            elif action < 7:
                self.rows("select from reproq_retry_failed(p_limit => 5)")
            elif action < 8:
                self.rows("select reproq_prune_finished(interval '3 seconds', 20)")
            elif action < 10:
                self.rows("select from reproq_reclaim()")
            else:
                self._impersonate()
        self.forget()

    def _impersonate(self) -> None:
        """End running tasks under tokens of their earlier attempts."""
        for result_id, token in self.rows(_STALE) or []:
            sent = time.monotonic()
            rows = self.rows(
                "select answer from reproq_complete(array[%s], array[%s], array['0'::jsonb])", result_id, token
            )
            if rows is not None:
                self._soak.calls.append(Called("impersonate", result_id, rows[0][0], sent, time.monotonic()))

    def _resume(self, queue: str) -> None:
        while not self._call("resume", queue, "select reproq_resume(%s)"):
            time.sleep(0.1)

    def _call(self, what: str, about: str | int, query: LiteralString) -> bool:
        sent = time.monotonic()
        rows = self.rows(query, about)
        if rows is not None:
            self._soak.calls.append(Called(what, about, str(rows[0][0]), sent, time.monotonic()))
        return rows is not None
