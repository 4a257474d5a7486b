"""The order of a claim is the formula, whatever the data (DESIGN: claiming)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sql.calls import PATH, add, claim, claimed_ids, limit_set, next_wake
from tests.sql.exploring import effort
from tests.support.database import Clock

QUEUES = ("a", "b", "c")


@dataclass(frozen=True)
class Task:
    """What the order depends on. Times are seconds from now; negative = past."""

    queue: str
    priority: int
    enqueued: float
    run_after: float | None
    path: str

    @property
    def ready_since(self) -> float:
        return self.enqueued if self.run_after is None else max(self.enqueued, self.run_after)

    def effective(self, aging_factor: float) -> float:
        """Priority, grown by the age since ready."""
        return self.priority + (-self.ready_since / aging_factor if aging_factor > 0 else 0)


times = st.sampled_from([-86400.0, -600.0, -60.0, -59.999999, -5.5, -1.0, -0.000001, 0.0, 0.000001, 30.0])
tasks = st.lists(
    st.builds(
        Task,
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([-3, 0, 0, 1, 2, 10, 1000]) | st.integers(-(2**31), 2**31 - 1),
        enqueued=times.map(lambda seconds: min(seconds, 0))
        | st.floats(-10000, 0).map(lambda seconds: round(seconds, 6)),
        run_after=st.none() | times,
        path=st.sampled_from([PATH, "app.tasks.slow"]),
    ),
    max_size=25,
)
factors = st.sampled_from([0.0, 0.001, 1.0, 60.0, 3600.0])


def in_order(waiting: dict[int, Task], queues: list[str], aging_factor: float) -> list[int]:
    """Due tasks: by effective priority, ready since and id in each queue; the queues take turns."""
    turns: list[tuple[int, int, int]] = []
    for place, queue in enumerate(dict.fromkeys(queues)):
        due = [(t, result_id) for result_id, t in waiting.items() if t.queue == queue and t.ready_since <= 0]
        due.sort(key=lambda pair: (-pair[0].effective(aging_factor), pair[0].ready_since, pair[1]))
        turns += [(turn, place, result_id) for turn, (_, result_id) in enumerate(due)]
    return [result_id for _, _, result_id in sorted(turns)]


@contextmanager
def inserted(conn: psycopg.Connection, wanted: list[Task]) -> Iterator[tuple[Clock, dict[int, Task]]]:
    """The tasks in the table, and a clock that stands; all is undone at the end."""
    with conn.transaction(force_rollback=True):
        clock = Clock(conn)

        def at(seconds: float) -> datetime:
            return clock.now + timedelta(seconds=seconds)

        ids = [
            add(
                conn,
                queue_name=t.queue,
                priority=t.priority,
                enqueued_at=at(t.enqueued),
                run_after=None if t.run_after is None else at(t.run_after),
                task_path=t.path,
            )
            for t in wanted
        ]
        yield clock, dict(zip(ids, wanted, strict=True))


@effort(examples=60)
@given(
    wanted=tasks,
    queues=st.lists(st.sampled_from(QUEUES), min_size=1, max_size=4),
    aging_factor=factors,
    limits=st.lists(st.integers(1, 8), min_size=1, max_size=4),
)
def test_claims_follow_the_formula(
    conn: psycopg.Connection, wanted: list[Task], queues: list[str], aging_factor: float, limits: list[int]
) -> None:
    """Claim after claim, each takes the best that are left; next_wake agrees on what is left."""
    with inserted(conn, wanted) as (_, waiting):
        for limit in limits:
            expected = in_order(waiting, queues, aging_factor)[:limit]
            assert claimed_ids(conn, limit, queues=queues, aging_factor=aging_factor, lease="30 days") == expected
            waiting = {result_id: t for result_id, t in waiting.items() if result_id not in expected}
        left = in_order(waiting, queues, aging_factor)
        future = [t.ready_since for t in waiting.values() if t.queue in queues and t.ready_since > 0]
        wake = next_wake(conn, *queues)
        if left:
            assert wake == timedelta(0)
        elif future:
            assert wake == timedelta(seconds=min(future))
        else:
            assert wake is None or wake == timedelta(days=30)


@effort(examples=40)
@given(
    wanted=tasks,
    aging_factor=factors,
    limits=st.lists(st.integers(1, 8), min_size=1, max_size=3),
    slow=st.one_of(st.none(), st.integers(0, 4)),
    rest=st.integers(0, 4),
)
def test_claims_under_token_buckets_follow_the_formula(
    conn: psycopg.Connection, wanted: list[Task], aging_factor: float, limits: list[int], slow: int | None, rest: int
) -> None:
    """In one queue: the best that have a token; a throttled task takes the place of no other. 0 = exempt."""
    wanted = [Task("a", t.priority, t.enqueued, t.run_after, t.path) for t in wanted]
    with inserted(conn, wanted) as (_, waiting):
        if slow is not None:
            limit_set(conn, "task:app.tasks.slow", 0.0001 if slow else 0, max(slow, 1))
        limit_set(conn, "queue:a", 0.0001 if rest else 0, max(rest, 1))
        tokens = {"app.tasks.slow": slow if slow else None, PATH: rest if rest else None}
        # A path without a bucket of its own shares the queue's.
        shared = ["app.tasks.slow", PATH] if slow is None and rest else []
        for limit in limits:
            expected: list[int] = []
            for result_id in in_order(waiting, ["a"], aging_factor):
                bucket = PATH if waiting[result_id].path in shared else waiting[result_id].path
                left = tokens[bucket]
                if len(expected) < limit and (left is None or left > 0):
                    expected.append(result_id)
                    tokens[bucket] = None if left is None else left - 1
            got = claim(conn, limit, queues=["a"], aging_factor=aging_factor)
            assert [t.result_id for t in got] == expected
            waiting = {result_id: t for result_id, t in waiting.items() if result_id not in expected}


SHAPES: dict[str, Callable[[random.Random, int], tuple[int, float]]] = {
    "earliest deadline first": lambda chance, n: (-chance.randrange(10**6), -chance.uniform(0, 4000)),
    # What is left of random priorities after claims for a while: age makes up for priority, and all are about equal.
    "older is less urgent": lambda chance, n: (n, -chance.uniform(60 * (700 - n), 60 * (700 - n) + 120)),
    "older is more urgent": lambda chance, n: (-n, -chance.uniform(4000 - n, 4060 - n)),
    "thirty priorities": lambda chance, n: (chance.randrange(30), -chance.uniform(0, 4000)),
    "all at once": lambda chance, n: (chance.randrange(10**6), -60.0),
}


def backlog(conn: psycopg.Connection, shape: str, number: int, future: float, seed: int) -> dict[int, Task]:
    """`number` tasks of a shape in queue a, a share of them due later; in a clock that stands."""
    chance = random.Random(seed)
    now = Clock(conn).now
    rows: list[Task] = []
    for n in range(number):
        priority, enqueued = SHAPES[shape](chance, n)
        run_after = chance.uniform(1, 4000) if chance.random() < future else None
        rows.append(Task("a", priority, round(enqueued, 6), run_after and round(run_after, 6), PATH))
    # One statement; the order of the ids says nothing about the order of the claim.
    chance.shuffle(rows)
    ids = conn.execute(
        """insert into task_runs (queue_name, priority, enqueued_at, run_after, spec_json, spec_hash)
           select 'a', p, %s + e * interval '1 second', %s + r * interval '1 second',
                  '{"v": 1, "task_path": "app.tasks.run", "args": [], "kwargs": {}}',
                  replace(gen_random_uuid()::text, '-', '')
           from unnest(%s::int[], %s::float8[], %s::float8[]) with ordinality as u (p, e, r, n) order by n
           returning result_id""",
        [now, now, [t.priority for t in rows], [t.enqueued for t in rows], [t.run_after for t in rows]],
    ).fetchall()
    return {result_id: t for (result_id,), t in zip(ids, rows, strict=True)}


def looked_at(waiting: dict[int, Task], limit: int) -> dict[int, Task]:
    """What a claim of a queue with many priorities looks at (sql/README.md, "Many priorities")."""
    by_priority = sorted(waiting, key=lambda i: (-waiting[i].priority, waiting[i].ready_since, i))
    due = [i for i in by_priority if waiting[i].ready_since <= 0]
    first = [i for i in by_priority[: limit + 1100] if waiting[i].ready_since <= 0][: limit + 100]
    longest = sorted(due, key=lambda i: (waiting[i].ready_since, i))[: limit + 100]
    top = sorted({t.priority for t in waiting.values()}, reverse=True)[:16]
    if len(top) < 16:
        return waiting
    streams = [[i for i in due if waiting[i].priority == priority][:limit] for priority in top]
    return {i: waiting[i] for i in [*first, *longest, *(i for stream in streams for i in stream)]}


@pytest.mark.parametrize("shape", SHAPES)
@effort(examples=15, shrink=False)
@given(
    number=st.sampled_from([17, 90, 700, 700]),
    future=st.sampled_from([0.0, 0.0, 0.3, 0.95]),
    aging_factor=st.sampled_from([0.0, 1.0, 60.0, 60.0, 60.0]),
    limits=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_claims_follow_the_formula_at_many_priorities(
    conn: psycopg.Connection,
    shape: str,
    number: int,
    future: float,
    aging_factor: float,
    limits: list[int],
    seed: int,
) -> None:
    """The best of the first hundred by priority and the hundred that wait longest; of all where that is proven."""
    with conn.transaction(force_rollback=True):
        waiting = backlog(conn, shape, number, future, seed)
        for limit in limits:
            expected = in_order(looked_at(waiting, limit), ["a"], aging_factor)[:limit]
            exact = in_order(waiting, ["a"], aging_factor)
            if len(exact) <= 100 or shape in ("older is more urgent", "all at once") or aging_factor == 0:
                assert expected == exact[:limit]
            assert claimed_ids(conn, limit, queues=["a"], aging_factor=aging_factor, lease="30 days") == expected
            waiting = {result_id: t for result_id, t in waiting.items() if result_id not in expected}
        wake = next_wake(conn, "a")
        if in_order(waiting, ["a"], aging_factor):
            assert wake == timedelta(0)
        elif waiting:
            assert wake == timedelta(seconds=min(t.ready_since for t in waiting.values()))


@pytest.mark.parametrize("shape", SHAPES)
def test_claim_takes_a_task_that_waits_long_enough_before_all_others(conn: psycopg.Connection, shape: str) -> None:
    """Whatever the other priorities: age wins in the end, and nothing starves."""
    waiting = backlog(conn, shape, 700, 0.3, seed=1)
    lowest = min(t.priority for t in waiting.values())
    highest = max(t.priority for t in waiting.values())
    clock = Clock(conn)
    old = add(
        conn, queue_name="a", priority=lowest, enqueued_at=clock.now - timedelta(seconds=60 * (highest - lowest) + 6000)
    )
    assert claimed_ids(conn, 1, queues=["a"], aging_factor=60) == [old]
