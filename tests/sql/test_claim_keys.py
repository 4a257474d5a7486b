"""reproq_claim: lock keys and concurrency keys, blocking, and who comes next."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import (
    add,
    add_many,
    call,
    cancel,
    claim,
    claimed,
    claimed_ids,
    complete,
    fail,
    next_wake,
    release,
    statuses,
    task,
    update,
)
from tests.support.database import Clock


def test_keys_one_holder_per_lock_key(conn: psycopg.Connection) -> None:
    """At most one task of a lock key runs, in one claim and across claims and queues; the rest is blocked."""
    first, second = add_many(conn, 2, lock_key="k")
    elsewhere = add(conn, lock_key="k", queue_name="other")
    free = add(conn)
    got = claim(conn)
    assert [t.result_id for t in got] == [first, free]
    assert claimed_ids(conn, queues=["other", "default"]) == []
    assert [task(conn, t).blocked_on for t in (second, elsewhere)] == ["l:k", "l:k"]
    complete(conn, got[0])
    assert len(claim(conn, queues=["default", "other"])) == 1


@pytest.mark.parametrize("keys", [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 1}])
def test_keys_tasks_due_later_block_no_new_one(conn: psycopg.Connection, clock: Clock, keys: dict[str, Any]) -> None:
    """Only those that are ready before it are a backlog, whoever inserts it."""
    later = {"run_after": clock.now + timedelta(hours=1), **keys}
    add_many(conn, 12, **later)
    (by_enqueue,) = call(conn, "reproq_enqueue", task_path="app.tasks.run", dedupe=False, **keys)
    tasks = Jsonb([{"task_path": "app.tasks.run", "dedupe": False, **keys}])
    (by_many,) = call(conn, "reproq_enqueue_many", tasks=tasks)
    new = [by_enqueue[0], by_many.result_id, add(conn, **keys)]
    assert [task(conn, result_id).blocked_on for result_id in new] == ["", "", ""]


@pytest.mark.parametrize(
    ("limits", "running"),
    [
        ([2, 2, 2, 2], 2),
        ([1, 5, 5], 1),  # the smallest positive one holds
        ([5, 5, 1], 1),
        ([5, 5, 5], 3),
        ([0, 0, 0], 3),  # no limit
        ([0, 0, 1, 1], 3),  # two unlimited ones and one of the limited
        ([-1, -5], 2),  # as 0
    ],
)
def test_keys_smallest_positive_limit_of_a_concurrency_key_holds(
    conn: psycopg.Connection, limits: list[int], running: int
) -> None:
    """The limit is a property of the key; rows without one run unlimited."""
    ids = [add(conn, concurrency_key="c", concurrency_limit=limit) for limit in limits]
    got = claim(conn) + claim(conn)
    assert len(got) == running
    slots = sorted(
        task(conn, t.result_id).concurrency_slot or 0 for t in got if task(conn, t.result_id).concurrency_slot
    )
    assert slots == list(range(1, len(slots) + 1))
    waiting = [t for t in ids if t not in {g.result_id for g in got}]
    assert {task(conn, t).blocked_on for t in waiting} <= {"c:c"}


def test_keys_place_that_became_free_is_given_again(conn: psycopg.Connection) -> None:
    """Numbered places: the one let go is the one taken next; never two holders of one place."""
    add_many(conn, 5, concurrency_key="c", concurrency_limit=3)
    first, second, third = claim(conn)
    assert [task(conn, t.result_id).concurrency_slot for t in (first, second, third)] == [1, 2, 3]
    complete(conn, second)
    (fourth,) = claim(conn)
    assert task(conn, fourth.result_id).concurrency_slot == 2
    assert claim(conn) == []


def test_keys_one_claim_fills_all_gaps(conn: psycopg.Connection) -> None:
    """The lowest free places, in the order of the tasks; then those above all that are held."""
    add_many(conn, 9, concurrency_key="c", concurrency_limit=8)
    held = claim(conn, 6)
    complete(conn, held[1], held[3], held[4])
    assert [task(conn, t.result_id).concurrency_slot for t in claim(conn)] == [2, 4, 5]
    complete(conn, held[0])
    assert claim(conn) == []
    add_many(conn, 5, concurrency_key="c", concurrency_limit=8)
    assert [task(conn, t.result_id).concurrency_slot for t in claim(conn)] == [1, 7, 8]


def test_keys_wide_key_brings_back_a_bounded_number(conn: psycopg.Connection) -> None:
    """A limit of a million and thousands blocked: a claim of one does not write them all."""
    add_many(conn, 3000, concurrency_key="c", concurrency_limit=1_000_000)
    before = written(conn)
    assert len(claim(conn, 1)) == 1
    assert written(conn) - before <= 1001


def test_keys_task_with_both_keys_needs_both(conn: psycopg.Connection) -> None:
    """Lock key and concurrency key are both held; blocking on one gives way for the other."""
    both = add(conn, lock_key="l", concurrency_key="c", concurrency_limit=1, priority=2)
    lock_only = add(conn, lock_key="l", priority=1)
    slot_only = add(conn, concurrency_key="c", concurrency_limit=1)
    (got,) = claim(conn)
    assert got.result_id == both
    complete(conn, got)
    assert sorted(claimed_ids(conn)) == [lock_only, slot_only]


def test_keys_task_blocked_on_its_second_key_lets_others_have_the_first(conn: psycopg.Connection) -> None:
    """It does not stand first for the lock key while its concurrency key is busy."""
    (holder,) = [claimed(conn, concurrency_key="c", concurrency_limit=1)]
    both = add(conn, lock_key="l", concurrency_key="c", concurrency_limit=1, priority=9)
    lock_only = add(conn, lock_key="l")
    assert claimed_ids(conn) == [lock_only]
    assert task(conn, both).blocked_on == "c:c"
    complete(conn, holder)
    assert claimed_ids(conn) == []  # the lock key is busy now
    assert task(conn, both).blocked_on == "l:l"


@pytest.mark.parametrize("ends_by", ["complete", "fail", "release", "cancel", "delete", "reclaim", "dba"])
def test_leaving_running_unblocks_the_next_one(conn: psycopg.Connection, clock: Clock, ends_by: str) -> None:
    """Every way out of RUNNING unblocks the next task of the key."""
    first, second = add_many(conn, 2, lock_key="k", max_attempts=1)
    (holder,) = claim(conn)
    assert claim(conn) == []
    assert task(conn, second).blocked_on == "l:k"
    match ends_by:
        case "complete":
            complete(conn, holder)
        case "fail":
            fail(conn, holder)
        case "release":
            release(conn, holder)
            cancel(conn, first)
        case "cancel":
            cancel(conn, first)
            release(conn, holder)
        case "delete":
            conn.execute("delete from task_runs where result_id = %s", [first])
        case "reclaim":
            clock.advance(minutes=2)
            conn.execute("select * from reproq_reclaim()")
        case "dba":
            update(conn, first, status="CANCELLED")
    assert task(conn, second).blocked_on == ""
    assert claimed_ids(conn) == [second]


def test_keys_task_that_is_retried_lets_the_next_one_come(conn: psycopg.Connection) -> None:
    """While it waits for its backoff, the key is free."""
    _, second = add_many(conn, 2, lock_key="k")
    (holder,) = claim(conn)
    assert task(conn, second).blocked_on == "l:k"
    fail(conn, holder)
    assert task(conn, second).blocked_on == ""


def test_keys_blocked_backlog_that_has_expired_does_not_hide_the_living(conn: psycopg.Connection, clock: Clock) -> None:
    """A claim ends it one after the other, within its bound, and takes the one behind."""
    holder = claimed(conn, lock_key="k")
    add_many(conn, 50, lock_key="k", expires_at=clock.now + timedelta(seconds=1))
    clock.advance(seconds=0.5)
    living = add(conn, lock_key="k", enqueued_at=clock.now)
    claim(conn)
    complete(conn, holder)
    clock.advance(seconds=1)
    assert claimed_ids(conn) == [living]


def serve_while_more_arrive(
    conn: psycopg.Connection, clock: Clock, rounds: int, places: int, **columns: Any
) -> tuple[list[int], list[int]]:
    """Twenty tasks of a key, then one more for each that ends; (order in which they arrived, in which they ran)."""

    def arrive() -> int:
        clock.advance(seconds=1)
        return add(conn, enqueued_at=clock.now, **columns)

    arrived = [arrive() for _ in range(20)]
    running = claim(conn, places, lease="1 day")
    served = []
    for _ in range(rounds):
        arrived.append(arrive())
        served.append(running[0].result_id)
        complete(conn, running.pop(0))
        running += claim(conn, 1, lease="1 day")
    return arrived, served


def test_key_that_is_never_idle_starves_no_task(conn: psycopg.Connection, clock: Clock) -> None:
    """First in, first out among the tasks of a lock key, blocked or not, while new ones come all the time."""
    arrived, served = serve_while_more_arrive(conn, clock, 40, 1, lock_key="k")
    assert served == arrived[:40]


def test_keys_concurrency_key_that_is_never_idle_starves_no_task(conn: psycopg.Connection, clock: Clock) -> None:
    """The same with three places."""
    arrived, served = serve_while_more_arrive(conn, clock, 40, 3, concurrency_key="c", concurrency_limit=3)
    assert served == arrived[:40]


def test_higher_priority_comes_first_among_the_tasks_of_one_key(conn: psycopg.Connection) -> None:
    """Priority decides among blocked tasks of one key, too."""
    (holder,) = [claimed(conn, lock_key="k")]
    low = add_many(conn, 12, lock_key="k", priority=0)
    claim(conn)
    high = add(conn, lock_key="k", priority=50)
    claim(conn)
    complete(conn, holder)
    assert claimed_ids(conn) == [high]
    assert set(statuses(conn, low)) == {"READY"}


def test_keys_busy_key_blocks_no_other(conn: psycopg.Connection) -> None:
    """300 tasks behind a busy key, all due when inserted and all ahead: the free one behind is claimed at once."""
    claimed(conn, lock_key="k")
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, lock_key, priority)"
        """ select '{"task_path": "a.b"}', md5(n::text), 'k', 5 from generate_series(1, 300) n"""
    )
    free = add(conn)
    assert claimed_ids(conn, 1) == [free]


def test_claim_blocks_the_backlog_of_a_busy_key_at_once(conn: psycopg.Connection) -> None:
    """Tasks that no insert could block are blocked together, and the claim reaches the free task behind them."""
    claimed(conn, lock_key="k")
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, task_path, lock_key, priority, revision)"
        """ select '{"task_path": "a.b"}', md5(n::text), 'a.b', 'k', 5, 1 from generate_series(1, 500) n"""
    )
    free = add(conn)
    assert claimed_ids(conn, 1) == [free]
    row = conn.execute("select count(*) from task_runs where status = 'READY' and blocked_on = 'l:k'").fetchone()
    assert row == (500,)


@pytest.mark.parametrize("limit", [1, 10, 300])
@pytest.mark.parametrize("priority", ["5", "n"])
@pytest.mark.parametrize("keys", [{"lock_key": "k"}, {"concurrency_key": "k", "concurrency_limit": 1}])
def test_claim_steps_over_a_backlog_that_is_too_large_to_block(
    conn: psycopg.Connection, keys: dict[str, Any], priority: LiteralString, limit: int
) -> None:
    """One claim reaches the free tasks behind it, with and without a key; the rest of the backlog is not hidden."""
    holder = claimed(conn, **keys)
    wanted: LiteralString = """
        insert into task_runs
            (spec_json, spec_hash, task_path, lock_key, concurrency_key, concurrency_limit, priority, revision)
        select '{"task_path": "a.b"}', md5(n::text), 'a.b', %s, %s, %s, PRIORITY, 1 from generate_series(1, 12000) n"""
    row = [keys.get("lock_key"), keys.get("concurrency_key"), keys.get("concurrency_limit", 0)]
    conn.execute(wanted.replace("PRIORITY", priority), row)
    free = [add(conn, lock_key="other"), *add_many(conn, limit - 1 or 1)]
    assert claimed_ids(conn, limit) == free[:limit]
    assert next_wake(conn) == timedelta(0)
    assert complete(conn, holder) == ["ok"]
    (first,) = claimed_ids(conn, 1)
    assert first not in free


def test_claim_that_stopped_at_two_hundred_tasks_wakes_workers(conn: psycopg.Connection) -> None:
    """What it could not look at is looked at by the next claim at once, not after a pause."""
    conn.execute("set local track_functions = 'pl'")
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, task_path, cancel_requested, revision)"
        """ select '{"task_path": "a.b"}', md5(n::text), 'a.b', true, 1 from generate_series(1, 300) n"""
    )
    free = add(conn)
    before = calls_of(conn, "_reproq_notify")
    assert claimed_ids(conn, 1) == []
    assert calls_of(conn, "_reproq_notify") == before + 1
    assert claimed_ids(conn, 1) == [free]
    assert calls_of(conn, "_reproq_notify") == before + 1


def test_claim_stops_after_two_hundred_busy_keys_and_hides_nothing(conn: psycopg.Connection) -> None:
    """A claim looks at 200 tasks beyond its limit and stops; next_wake says 0; the free task comes within claims."""
    row = (
        "insert into task_runs (spec_json, spec_hash, task_path, lock_key, priority, revision, status, lease_token,"
        " leased_until)"
        " select '{\"task_path\": \"a.b\"}', md5(n::text || %(status)s), 'a.b', 'k' || n, 5, 1, %(status)s,"
        " case when %(status)s = 'RUNNING' then gen_random_uuid() end,"
        " case when %(status)s = 'RUNNING' then now() + interval '1 hour' end from generate_series(1, 500) n"
    )
    conn.execute(row, {"status": "RUNNING"})
    conn.execute(row, {"status": "READY"})
    free = add(conn)
    assert claimed_ids(conn, 1) == []
    assert next_wake(conn) == timedelta(0)
    assert claimed_ids(conn, 1) == []
    assert claimed_ids(conn, 1) == [free]


def test_keys_claim_of_one_meets_a_backlog_in_few_passes(conn: psycopg.Connection, clock: Clock) -> None:
    """What a full worker asks for, one task, costs no pass for each task that is blocked on the way."""
    conn.execute("set local track_functions = 'pl'")
    claimed(conn, lock_key="k")
    add_many(conn, 150, lock_key="k", priority=5, run_after=clock.now + timedelta(seconds=1))
    free = add(conn)
    clock.advance(seconds=3)
    before = calls_of(conn, "_reproq_claim_pass")
    assert claimed_ids(conn, 1) == [free]
    assert calls_of(conn, "_reproq_claim_pass") - before <= 6


def calls_of(conn: psycopg.Connection, function: str) -> int:
    """How often this transaction has called a function, with track_functions on."""
    query = "select coalesce(sum(calls), 0) from pg_stat_xact_user_functions where funcname = %s"
    (count,) = conn.execute(query, [function]).fetchone() or (0,)
    return int(count)


@pytest.mark.parametrize("key", ["k" * 2**20, uuid.uuid4().hex * 190, "\U0001f600", "l:", "c:", "%", " "])
def test_any_text_is_a_key(conn: psycopg.Connection, key: str) -> None:
    """Keys of 1 MiB, 6 kB that do not compress, emoji, our own prefixes: each excludes and lets go."""
    add_many(conn, 2, lock_key=key)
    add_many(conn, 2, concurrency_key=key, concurrency_limit=1)
    first = claim(conn)
    assert len(first) == 2
    assert claim(conn) == []
    complete(conn, *first)
    assert len(claim(conn)) == 2


def test_keys_empty_key_is_no_key(conn: psycopg.Connection) -> None:
    """'' and null exclude no task."""
    ids = add_many(conn, 3, lock_key="", concurrency_key="", concurrency_limit=1)
    assert claimed_ids(conn) == ids


def test_lock_key_and_concurrency_key_of_the_same_text_are_two_keys(conn: psycopg.Connection) -> None:
    """They do not exclude each other."""
    ids = [add(conn, lock_key="x"), add(conn, concurrency_key="x", concurrency_limit=1)]
    assert claimed_ids(conn) == ids


def test_keys_claim_takes_two_hundred_keyed_tasks_at_most(conn: psycopg.Connection) -> None:
    """The others are left to the next claim, keyless ones go through: claims cannot exhaust the lock table."""
    keyed = [add(conn, lock_key=f"k{number}") for number in range(250)]
    free = add_many(conn, 50)
    with conn.transaction():
        assert claimed_ids(conn, 1000) == keyed[:200] + free
        held = conn.execute("select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()")
        assert held.fetchone() == (200,)
    assert next_wake(conn) == timedelta(0)
    assert claimed_ids(conn, 1000) == keyed[200:]


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ({"lock_key": "k"}, 1),
        ({"concurrency_key": "c", "concurrency_limit": 2}, 2),
        ({"concurrency_key": "c", "concurrency_limit": 3}, 3),
    ],
)
def test_key_that_is_given_away_is_not_free_to_its_own_claim(
    conn: psycopg.Connection, key: dict[str, Any], places: int
) -> None:
    """One key over twenty priorities: what a claim cannot start is not unblocked and blocked again by its own sweep."""
    ids = [add(conn, priority=priority, **key) for priority in range(20, 0, -1)]
    started = claim(conn)
    for expected in range(places, 20, places):
        complete(conn, *started)
        before = written(conn)
        started = claim(conn)
        assert [t.result_id for t in started] == ids[expected : expected + places]
        assert written(conn) - before <= 20 - expected, "more than one write for each task that started or waits"


def written(conn: psycopg.Connection) -> int:
    """Row versions of task_runs that this transaction has written."""
    (count,) = conn.execute("select pg_stat_get_xact_tuples_updated('task_runs'::regclass)").fetchone() or (0,)
    return int(count)
