"""Many claimers on every kind of task while operators work; then nothing may be left or wrong.

One seed by default; REPROQ_STRESS=3 runs three, as `.ci/run` does.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import LiteralString
from uuid import UUID, uuid4

import pytest

from tests.concurrency.conftest import count_deadlocks
from tests.concurrency.history import Hold, Violation, check_holds, check_rate
from tests.concurrency.interleave import drain
from tests.concurrency.sessions import TASK_PATH, Attempt, Session
from tests.support.database import Database

QUEUES = ("default", "other", "third")
SLOW = "app.tasks.slow"
RATE, BURST = 40.0, 5
LEASES = {"0.2 s": 0.2, "1 s": 1.0}
TASKS = 400
CLAIMERS = 6
SECONDS = 12


@dataclass
class Field:
    """What the actors of one run share."""

    dsn: str
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    holds: list[Hold] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)

    def count(self, action: str, answers: list[str]) -> None:
        with self.lock:
            for answer in answers:
                self.answers[f"{action}: {answer}"] = self.answers.get(f"{action}: {answer}", 0) + 1


def some_columns(chance: random.Random) -> dict[str, object]:
    """A task of one of the kinds: plain, keyed in every way, throttled, expiring, with few or many attempts."""
    columns: dict[str, object] = {
        "queue_name": chance.choice(QUEUES),
        "priority": chance.choice([0, 0, 1, 5]),
        "max_attempts": chance.choice([1, 3, 3, 20]),
    }
    if chance.random() < 0.35:
        columns["lock_key"] = chance.choice("klmn")
    if chance.random() < 0.35:
        columns["concurrency_key"], limits = chance.choice([("two", [2]), ("mixed", [1, 3, 3, 0]), ("five", [5])])
        columns["concurrency_limit"] = chance.choice(limits)
    if chance.random() < 0.15:
        columns["task_path"] = SLOW
    if chance.random() < 0.04:
        columns["expires_at"] = "2020-01-01"
    return columns


def produce(session: Session, chance: random.Random) -> None:
    """Enqueue some 400 tasks, in several commits while the claimers work: single ones, chains and chords."""
    made = 0
    while made < TASKS:
        kind = chance.random()
        if kind < 0.03:
            made += len(session.add_chain(chance.randint(2, 5), **some_columns(chance)))
        elif kind < 0.06:
            _, members, _ = session.add_chord(chance.randint(1, 5), **some_columns(chance))
            made += len(members) + 1
        elif kind < 0.10:
            made += len(session.enqueue_many([chance.randint(1, 5) for _ in range(3)]))
        else:
            session.add(**some_columns(chance))
            made += 1
        if chance.random() < 0.05:
            session.commit()
    session.commit()


def claim(session: Session, start: UUID, chance: random.Random, shared: Field) -> list[tuple[Attempt, Hold]]:
    """Claim up to five tasks and enter them in the history."""
    lease = chance.choice(list(LEASES))
    queues = chance.sample(QUEUES, k=chance.choice([1, 3, 3]))
    called = time.monotonic()
    number, aging = chance.randint(1, 5), chance.choice([0, 60])
    attempts = session.claim(number, queues, lease=lease, aging=aging, incarnation=start)
    session.commit()
    replied = time.monotonic()
    found = session.rows(
        "select result_id, lock_key, concurrency_key, concurrency_limit, task_path from task_runs"
        " where result_id = any (%s)",
        [attempt.result_id for attempt in attempts],
    )
    session.commit()
    columns = {row[0]: row[1:] for row in found}
    holds = [
        (
            attempt,
            Hold(
                attempt.result_id,
                session.name,
                called,
                replied,
                called + LEASES[lease],
                *columns.get(attempt.result_id, (None, None, 0, TASK_PATH)),
            ),
        )
        for attempt in attempts
    ]
    with shared.lock:
        shared.holds += [hold for _, hold in holds]
    return holds


def renew(session: Session, start: UUID, held: list[tuple[Attempt, Hold]], shared: Field) -> None:
    """One heartbeat for all; the lease of a task that is not renewed is taken to end when it would have."""
    called = time.monotonic()
    answers = session.heartbeat([attempt for attempt, _ in held], lease="1 s", incarnation=start)
    session.commit()
    shared.count("heartbeat", answers)
    for (_, hold), answer in zip(held, answers, strict=True):
        if answer in ("ok", "cancel"):
            hold.lease_ends = max(hold.lease_ends, called + 1)


def finish(session: Session, held: list[tuple[Attempt, Hold]], chance: random.Random, shared: Field) -> bool:
    """End all attempts, in batches of one outcome; or die with some of them, one in twenty: whether it lives on."""
    ends: list[tuple[str, Callable[..., list[str]]]] = [
        ("complete", session.complete),
        ("fail", session.fail),
        ("retry", lambda *attempts: session.fail(*attempts, retryable=True)),
        ("release", session.release),
    ]
    chosen = chance.choices(range(5), weights=[60, 5, 15, 15, 5], k=len(held))
    for number, (action, call) in enumerate(ends):
        batch = [pair for pair, choice in zip(held, chosen, strict=True) if choice == number]
        while batch:
            for _, hold in batch:
                hold.ended = time.monotonic() if hold.ended is None else hold.ended
            answers = call(*(attempt for attempt, _ in batch))
            session.commit()
            shared.count(action, answers)
            batch = [pair for pair, answer in zip(batch, answers, strict=True) if answer == "busy"]
    return len(ends) not in chosen


def work(shared: Field, number: int) -> None:
    """One claimer; when it dies it starts again, under its name, as another incarnation."""
    chance = random.Random(shared.seed * 100 + number)
    start = uuid4()
    pause = threading.Event()
    with Session(shared.dsn, f"claimer {number}") as session:
        while not shared.stop.is_set():
            held = claim(session, start, chance, shared)
            if not held:
                pause.wait(0.005)
                continue
            pause.wait(chance.choice([0, 0, 0.002, 0.01]))
            if chance.random() < 0.3:
                renew(session, start, held, shared)
            if not finish(session, held, chance, shared):
                start = uuid4()


BY_HAND: tuple[LiteralString, ...] = (
    "update task_runs set cancel_requested = true where result_id = %s and finished_at is null",
    "delete from task_runs where result_id = %s and status = 'READY' and workflow_id is null",
    "update task_runs set status = 'SUCCESSFUL' where result_id = %s and status = 'READY'",
    "update task_runs set queue_name = 'third' where result_id = %s and status = 'READY'",
    "update task_runs set metadata_json = '{\"seen\": true}' where result_id = %s",
)


def operate(shared: Field) -> None:
    """Operators and other programs, one action a transaction: reclaim, pause, cancel, delete, write rows."""
    chance = random.Random(shared.seed * 100 + 99)
    with Session(shared.dsn, "operator") as session:
        while not shared.stop.wait(0.01):
            task = session.value("select coalesce(max(result_id), 0) from task_runs") - chance.randint(0, TASKS)
            action = chance.randint(1, 20)
            if action <= 8:
                session.reclaim()
            elif action <= 9:
                session.pause(queue := chance.choice(QUEUES))
                session.commit()
                shared.stop.wait(0.02)
                session.resume(queue)
            elif action <= 12:
                session.cancel(task)
            elif action <= 13:
                session.retry(task)
            elif action <= 14:
                session.limit_set(f"task:{SLOW}", RATE, BURST)
            elif action <= 15:
                session.prune(task)
            else:
                session.rows(chance.choice(BY_HAND), task)
            session.commit()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(1, int(os.environ.get("REPROQ_STRESS", "1")) + 1))
def test_everything_at_once(server_dsn: str, database: Database, seed: int) -> None:
    """400 tasks, 6 claimers, operators: no key or rate over-admitted, no task held twice, none left, no deadlock."""
    shared = Field(database.dsn, seed)
    with Session(database.dsn, "boss") as boss, ThreadPoolExecutor(CLAIMERS + 1) as threads:
        boss.limit_set(f"task:{SLOW}", RATE, BURST)
        boss.commit()
        actors = [threads.submit(work, shared, number) for number in range(CLAIMERS)]
        actors.append(threads.submit(operate, shared))
        try:
            produce(boss, random.Random(seed))
            left = watch(boss, actors)
        finally:
            shared.stop.set()
        for actor in actors:
            actor.result()
        print(f"seed {seed}: {left} tasks left for the last worker; {len(shared.holds)} attempts; {shared.answers}")
        check_holds(shared.holds)
        check_rate([hold for hold in shared.holds if hold.task_path == SLOW], rate=RATE, burst=BURST)
        boss.rows("update task_runs set updated_at = now() - interval '2 minutes' where status = 'WAITING'")
        drain(boss, QUEUES)
    assert count_deadlocks(server_dsn, database) == 0


def watch(boss: Session, actors: Sequence[Future[None]]) -> int:
    """Wait until all tasks have ended, an actor has failed, or it has been long enough; how many tasks are left."""
    deadline = time.monotonic() + SECONDS
    pause = threading.Event()
    while True:
        left = int(boss.value("select count(*) from task_runs where finished_at is null"))
        boss.commit()
        if left == 0 or time.monotonic() > deadline or any(actor.done() for actor in actors):
            return left
        pause.wait(0.05)


def test_eight_connections_empty_a_queue(database: Database) -> None:
    """Batches of ten from 5,000 tasks by eight connections: every task once, none left."""

    def take(number: int) -> list[int]:
        taken: list[int] = []
        with Session(database.dsn, f"claimer {number}") as session:
            while True:
                attempts = session.claim(10)
                session.commit()
                taken += [attempt.result_id for attempt in attempts]
                if not attempts and session.next_wake() != 0:
                    return taken
                session.commit()

    with Session(database.dsn, "boss") as boss:
        boss.rows(
            "insert into task_runs (priority, spec_json, spec_hash)"
            " select n %% 3, jsonb_build_object('v', 1, 'task_path', %s::text), 'h' || n"
            " from generate_series(1, 5000) n",
            TASK_PATH,
        )
        boss.commit()
        with ThreadPoolExecutor(8) as threads:
            taken = [task for tasks in threads.map(take, range(8)) for task in tasks]
        assert len(taken) == len(set(taken)) == 5000
        assert boss.value("select count(*) from task_runs where status = 'RUNNING'") == 5000


def test_stress_checker_sees_violations() -> None:
    """The checks of the history are no empty words: each of these must be found."""

    def hold(task: int, start: float, end: float, lock: str | None = None, limit: int = 0) -> Hold:
        return Hold(task, "w", start, start, end, lock, "c" if limit else None, limit, SLOW)

    for wrong in (
        [hold(1, 0, 2), hold(1, 1, 3)],
        [hold(1, 0, 2, lock="k"), hold(2, 1, 3, lock="k")],
        [hold(n, n / 10, 3, limit=2) for n in range(3)],
        [hold(n, n / 10, 3, limit=5 - 4 * n) for n in range(2)],
    ):
        with pytest.raises(Violation):
            check_holds(wrong)
    check_holds([hold(1, 0, 1, lock="k"), hold(2, 1, 3, lock="k"), hold(1, 2, 4)])
    with pytest.raises(Violation):
        check_rate([hold(n, n / 100, 3) for n in range(4)], rate=10, burst=3)
    check_rate([hold(n, n / 10, 3) for n in range(8)], rate=10, burst=3)
