"""reproq_metrics: what the fleet looks like, at a bounded cost."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from tests.sql.calls import add, add_many, claim, limit_set, rows, update
from tests.support.database import Clock

Numbers = dict[tuple[str, str], float]


def numbers(conn: psycopg.Connection) -> Numbers:
    found = rows(conn, "select metric, label, value from reproq_metrics()")
    assert len({(row.metric, row.label) for row in found}) == len(found)
    return {(row.metric, row.label): row.value for row in found}


def test_metrics_empty_database_has_only_the_fleet_numbers(conn: psycopg.Connection) -> None:
    """No queue, no row for it; what is always there is there."""
    found = numbers(conn)
    assert {metric for metric, label in found if label == ""} == {
        "beat_lateness_seconds",
        "capacity",
        "leases_expired",
        "notification_queue_usage",
        "oldest_transaction_seconds",
        "workers",
    }
    assert not [label for _, label in found if label]


def test_tasks_are_counted_by_queue_and_state(conn: psycopg.Connection, clock: Clock) -> None:
    """Ready is due and unblocked; the age is that of the oldest due task, whatever its priority."""
    later = clock.now + timedelta(hours=1)
    add_many(conn, 3, enqueued_at=clock.now - timedelta(seconds=10), priority=9)
    add(conn, enqueued_at=clock.now - timedelta(seconds=70), priority=-1)
    add(conn, run_after=later)
    add(conn, queue_name="b", run_after=later)
    update(conn, add(conn, lock_key="k"), blocked_on="l:k")
    update(conn, add(conn, concurrency_key="k", concurrency_limit=1, queue_name="b"), blocked_on="c:k")
    parent = add(conn, queue_name="b", run_after=later)
    add(conn, status="WAITING", parent_id=parent, wait_count=1, queue_name="c")
    found = numbers(conn)
    assert {
        key: found.get(key) for key in [("ready", "default"), ("scheduled", "default"), ("blocked", "default")]
    } == {
        ("ready", "default"): 4,
        ("scheduled", "default"): 1,
        ("blocked", "default"): 1,
    }
    assert (found["ready", "b"], found["scheduled", "b"], found["blocked", "b"]) == (0, 2, 1)
    assert found["waiting", "c"] == 1
    assert found["oldest_ready_seconds", "default"] == 70
    assert found["oldest_ready_seconds", "b"] == 0
    held_back = {label: count for (metric, label), count in found.items() if metric == "held_back"}
    assert held_back == {"lock_key": 1, "concurrency_key": 1, "predecessor": 1, "scheduled": 3}


def test_paused_and_throttled_tasks_are_held_back(conn: psycopg.Connection) -> None:
    """Due tasks of a paused queue, and of one with an empty bucket, each under its own reason."""
    add_many(conn, 2, queue_name="stopped")
    conn.execute("select reproq_pause('stopped')")
    limit_set(conn, "queue:slow", 0.001, 1)
    add_many(conn, 3, queue_name="slow")
    assert len(claim(conn, 5, queues=["slow"])) == 1
    found = numbers(conn)
    assert found["held_back", "paused"] == 2
    assert found["paused", "stopped"] == 1
    assert found["held_back", "throttled"] == 2
    assert (found["ready", "slow"], found["throttled", "slow"]) == (2, 2)
    assert (found["ready", "stopped"], found.get(("throttled", "stopped"))) == (2, None)
    assert found["limit_tokens", "queue:slow"] < 1
    assert found["running", "slow"] == 1


def test_dead_workers_and_expired_leases(conn: psycopg.Connection, clock: Clock) -> None:
    """A worker unseen for five minutes counts neither as one nor with its places; its leases show as expired."""
    for name in ("a", "b"):
        conn.execute("select reproq_register_worker(%s, 'h', 7, '{default}', 'v')", [name])
    add(conn)
    claim(conn, 1, lease=timedelta(seconds=30))
    assert numbers(conn)["capacity", ""] == 14
    conn.execute("update reproq_workers set last_seen_at = reproq_now() - interval '6 minutes' where worker_id = 'a'")
    clock.advance(seconds=31)
    found = numbers(conn)
    assert (found["workers", ""], found["capacity", ""], found["leases_expired", ""]) == (1, 7, 1)


def test_lateness_of_beats(conn: psycopg.Connection, clock: Clock) -> None:
    """How long the earliest enabled schedule is overdue; 0 when none is."""
    insert = (
        "insert into periodic_tasks (name, cron_expr, task_path, next_run_at, enabled, planned)"
        " values (%s, '* * * * *', 'a.b', %s, %s, true)"
    )
    conn.execute(insert, ["off", clock.now - timedelta(hours=1), False])
    conn.execute(insert, ["later", clock.now + timedelta(seconds=5), True])
    assert numbers(conn)["beat_lateness_seconds", ""] == 0
    clock.advance(seconds=12)
    assert numbers(conn)["beat_lateness_seconds", ""] == 7


def test_counts_stop_at_their_bound(conn: psycopg.Connection) -> None:
    """However deep the queue, about 100,000 rows are looked at, shared among the queues; the oldest age stays exact."""
    conn.execute(
        "insert into task_runs (queue_name, priority, spec_json, spec_hash, task_path, enqueued_at)"
        " select q, 5, '{\"task_path\": \"a.b\"}', md5(q || n), 'a.b', now() - interval '1 minute'"
        " from unnest('{x,y}'::text[]) q, generate_series(1, 60000) n"
    )
    add(conn, queue_name="x", priority=1, enqueued_at="2001-01-01")
    reads = "select seq_scan, idx_tup_fetch from pg_stat_xact_user_tables where relid = 'task_runs'::regclass"
    ((scans_before, read_before),) = conn.execute(reads).fetchall()
    found = numbers(conn)
    ((scans, read),) = conn.execute(reads).fetchall()
    assert scans == scans_before, "a sequential scan"
    assert read - read_before < 101_000
    assert (found["ready", "x"], found["ready", "y"]) == (50_000, 50_000)
    assert found["oldest_ready_seconds", "x"] > 86400 * 365 * 20


def deep_queue(conn: psycopg.Connection, number: int) -> None:
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, enqueued_at)"
        " select '{\"task_path\": \"a.b\"}', n::text, now() - interval '1 hour' from generate_series(1, %s) n",
        [number],
    )


def test_counts_of_a_deep_queue_are_kept_for_15_seconds(conn: psycopg.Connection, clock: Clock) -> None:
    """All workers and scrapes share them; a clock that steps back does not keep them for longer."""
    deep_queue(conn, 10_001)
    before = numbers(conn)
    claim(conn, 5)
    clock.advance(seconds=14.9)
    assert numbers(conn) == before
    clock.advance(seconds=0.1)
    after = numbers(conn)
    assert (before["ready", "default"], after["ready", "default"]) == (10_001, 9_996)
    claim(conn, 5)
    clock.advance(seconds=-60)
    assert numbers(conn)["ready", "default"] == 9_991


def test_few_tasks_are_counted_at_each_call(conn: psycopg.Connection, clock: Clock) -> None:
    """Up to 10,000 tasks nothing is kept."""
    deep_queue(conn, 100)
    assert numbers(conn)["ready", "default"] == 100
    claim(conn, 5)
    assert numbers(conn)["ready", "default"] == 95
    assert rows(conn, "select from reproq_metrics_cache") == []


def test_deep_queue_is_counted_in_a_read_only_transaction(conn: psycopg.Connection) -> None:
    """On a standby, too: nothing is kept then."""
    deep_queue(conn, 10_001)
    conn.execute("set transaction_read_only = on")
    assert numbers(conn)["ready", "default"] == 10_001


def test_finished_tasks_are_not_read_for_queues(conn: psycopg.Connection) -> None:
    """reproq_queues reads a partial index for each kind of unfinished task, whatever has ended."""
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, status) select '{\"task_path\": \"a.b\"}', n::text, 'SUCCESSFUL'"
        " from generate_series(1, 20000) n"
    )
    add(conn)
    for analysed in (False, True):
        if analysed:
            conn.execute("analyze task_runs")
        plan = "\n".join(line for (line,) in conn.execute("explain select * from reproq_queues"))
        assert "Seq Scan on task_runs" not in plan
