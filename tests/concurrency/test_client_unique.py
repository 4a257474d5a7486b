"""Unique keys through the client: producers race, runners run: exactly the promised runs, and no change is lost."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest

from reproq_listen import Client
from tests.apps import client_tasks as app
from tests.support.database import Database, expect_blocked, in_background

PRODUCERS = 50
KEYS = 20
ROUNDS = 6
RUNNERS = 3


class Race:
    """What producers write before they enqueue, in the same transaction, and what the runs saw of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._done = threading.Event()
        self.returned: set[int] = set()
        with database.connect() as connection:
            connection.execute("create table writes (key text, argument int)")
            connection.execute("create table seen (result_id bigint primary key, key text, number int)")

    def run(self, options: dict[str, Any]) -> None:
        """Let all producers finish, then the runners."""
        with ThreadPoolExecutor(PRODUCERS + RUNNERS) as threads:
            runners = [threads.submit(self._consume, number) for number in range(RUNNERS)]
            producers = [threads.submit(self._produce, number, options) for number in range(PRODUCERS)]
            try:
                for producer in producers:
                    self.returned |= producer.result()
            finally:
                self._done.set()
            for runner in runners:
                runner.result()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self._database.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def _produce(self, number: int, options: dict[str, Any]) -> set[int]:
        keys = random.Random(number)
        found = set()
        with psycopg.connect(self._database.dsn) as connection:
            client = Client(connection)
            for turn in range(ROUNDS):
                key = f"k{keys.randint(1, KEYS)}"
                connection.execute("insert into writes values (%s, %s)", [key, turn])
                found.add(client.enqueue(app.debounced.using(**options), key, turn).id)
                connection.commit()
        return found

    def _consume(self, number: int) -> None:
        with psycopg.connect(self._database.dsn, autocommit=True) as connection:
            while True:
                is_last = self._done.is_set()
                claimed = connection.execute(
                    "select c.result_id, c.lease_token, c.spec_json -> 'args' "
                    "from reproq_claim(%s, '{default}', 2, interval '1 minute') as c",
                    [f"runner-{number}"],
                ).fetchall()
                if not claimed and is_last and not self._is_work_left(connection):
                    return
                for result_id, token, (key, _) in claimed:
                    connection.execute(
                        "insert into seen select %s, %s, count(*) from writes where key = %s", [result_id, key, key]
                    )
                    while self._complete(connection, result_id, token) == "busy":
                        pass  # a producer that found it queued holds its row until it commits

    @staticmethod
    def _complete(connection: psycopg.Connection, result_id: int, token: object) -> str:
        row = connection.execute(
            "select answer from reproq_complete(array[%s::bigint], array[%s::uuid], '{null}')", [result_id, token]
        ).fetchone()
        assert row is not None
        return str(row[0])

    @staticmethod
    def _is_work_left(connection: psycopg.Connection) -> bool:
        return connection.execute("select from task_runs where finished_at is null limit 1").fetchone() is not None


@pytest.fixture
def race(database: Database) -> Callable[..., Race]:
    def start(**options: Any) -> Race:
        race = Race(database)
        race.run(options)
        return race

    return start


WRITTEN = """
    select w.key, count(*), (select max(s.number) from seen s where s.key = w.key) from writes w group by w.key
"""


def check_runs(race: Race) -> None:
    """Every task that a producer was told of ran exactly once, and nothing else did."""
    runs = race.rows("select s.result_id, t.status, t.attempts from task_runs t left join seen s using (result_id)")
    assert {row[0] for row in runs} == race.returned
    assert {row[1:] for row in runs} == {("SUCCESSFUL", 1)}


@pytest.mark.parametrize("on_duplicate", ["keep", "replace"])
def test_unique_key_queued_loses_no_change(race: Callable[..., Race], on_duplicate: str) -> None:
    """Each write is seen by a run that starts after it was committed: no producer gets a task that starts before."""
    found = race(unique_while="queued", on_duplicate=on_duplicate)
    check_runs(found)
    assert [row for row in found.rows(WRITTEN) if row[1] != row[2]] == []


def test_unique_key_active_runs_one_at_a_time(race: Callable[..., Race]) -> None:
    """No task is enqueued while one of its key is queued or running, so no two of a key overlap."""
    found = race(unique_while="active", on_duplicate="keep")
    check_runs(found)
    overlaps = """
        select a.result_id, b.result_id from task_runs a join task_runs b
        on b.spec_json #>> '{args,0}' = a.spec_json #>> '{args,0}' and b.result_id <> a.result_id
        where b.started_at between a.started_at and a.finished_at
    """
    assert found.rows(overlaps) == []


@pytest.mark.parametrize("on_duplicate", ["keep", "replace"])
def test_unique_key_window_runs_once(race: Callable[..., Race], on_duplicate: str) -> None:
    """One run a key within the hour, whatever became of it."""
    found = race(unique_for=3600, on_duplicate=on_duplicate)
    check_runs(found)
    runs = dict(found.rows("select key, count(*) from seen group by key"))
    assert runs == {key: 1 for key, _, _ in found.rows(WRITTEN)}


def test_unique_key_replacing_producers_lock_the_key_first(connect: Callable[[], psycopg.Connection]) -> None:
    """A task is claimed while two producers want to replace it: none waits for the other in a circle."""
    worker, holder, other = connect(), connect(), connect()
    enqueue: LiteralString = "select reproq_enqueue('app.a', p_unique_key => 'k', p_on_duplicate => 'replace')"
    worker.execute(enqueue)
    worker.commit()
    worker.execute("select * from reproq_claim('w1', '{default}', 1, interval '1 minute')")
    holder.execute("select from reproq_unique_keys for no key update")  # as a producer that has looked and found none
    blocked = in_background(other, enqueue)
    expect_blocked(other, by=holder)
    behind = in_background(holder, enqueue)
    expect_blocked(holder, by=worker)
    worker.commit()
    ((first,),) = behind.result(10)
    holder.commit()
    ((second,),) = blocked.result(10)
    other.commit()
    assert first == second
