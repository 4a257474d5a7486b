"""reproq_limit_set, reproq_limit_rm: token buckets as rows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL

from tests.sql.calls import add, add_many, call, claim, claimed_ids, limit_set, next_wake, refused, rows, task, value
from tests.support.database import Clock


def bucket(conn: psycopg.Connection, key: str) -> Any:
    """The row of a bucket."""
    (found,) = rows(conn, "select * from rate_limits where key = %s", [key])
    return found


def test_limit_new_bucket_is_full(conn: psycopg.Connection, clock: Clock) -> None:
    """Burst tokens, not rate."""
    limit_set(conn, "queue:q", 0.1, 5)
    row = bucket(conn, "queue:q")
    assert (row.tokens_per_second, row.burst_size, row.current_tokens) == (pytest.approx(0.1), 5, 5)
    assert row.last_refilled_at == clock.now


def test_limit_changed_bucket_keeps_its_level(conn: psycopg.Connection, clock: Clock) -> None:
    """What was spent stays spent; at most the new burst; what flowed in until now did so at the old rate."""
    limit_set(conn, "queue:default", 1, 10)
    add_many(conn, 8)
    assert len(claim(conn)) == 8
    clock.advance(seconds=3)
    limit_set(conn, "queue:default", 100, 20)
    assert bucket(conn, "queue:default").current_tokens == pytest.approx(5)
    limit_set(conn, "queue:default", 100, 2)
    assert bucket(conn, "queue:default").current_tokens == pytest.approx(2)


def test_limit_bucket_that_was_off_starts_full(conn: psycopg.Connection) -> None:
    """Rate 0 is no limit, so switching on is as new; `global` is there from the start, off."""
    assert bucket(conn, "global").tokens_per_second == 0
    limit_set(conn, "global", 1, 7)
    assert bucket(conn, "global").current_tokens == 7


def test_labels_follow_the_bucket_of_a_path(conn: psycopg.Connection) -> None:
    """Waiting tasks move to a stream of their own and back; new ones are born there; running ones stay."""
    early, waiting, other = add(conn), add(conn, status="WAITING"), add(conn, task_path="app.tasks.other")
    running = add(conn, queue_name="r")
    claim(conn, queues=["r"])
    limit_set(conn, "task:app.tasks.run", 1, 1)
    late = add(conn)
    labels = [task(conn, t).limit_key for t in (early, waiting, other, running, late)]
    assert labels == ["task:app.tasks.run", "task:app.tasks.run", "", "", "task:app.tasks.run"]
    limit_set(conn, "task:app.tasks.run", 0, 1)
    assert {task(conn, t).limit_key for t in (early, waiting, late, add(conn))} == {"task:app.tasks.run"}
    assert value(conn, "select reproq_limit_rm('task:app.tasks.run')") is True
    assert {task(conn, t).limit_key for t in (early, waiting, late, add(conn))} == {""}


def test_limit_bucket_whose_row_vanished_limits_no_task(conn: psycopg.Connection) -> None:
    """A label without a bucket is no obstacle."""
    limit_set(conn, "task:app.tasks.run", 1, 1)
    ids = add_many(conn, 3)
    conn.execute("delete from rate_limits where key like 'task:%'")
    assert claimed_ids(conn) == ids


def test_removing_answers_whether_there_was_one(conn: psycopg.Connection) -> None:
    """true once; `global` stays as a row that is off; null and nonsense are false."""
    limit_set(conn, "queue:q", 1, 1)
    limit_set(conn, "global", 1, 1)
    answers = [
        value(conn, "select reproq_limit_rm(%s)", [key])
        for key in ("queue:q", "queue:q", "global", "global", "nonsense", "", None)
    ]
    assert answers == [True, False, True, False, False, False, False]
    assert bucket(conn, "global").tokens_per_second == 0


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        ("key", None),
        ("key", ""),
        ("key", "queue:"),
        ("key", "task:"),
        ("key", "Global"),
        ("key", "app.tasks.run"),
        ("key", "queue:" + "x" * 1100),
        ("rate", None),
        ("rate", -0.1),
        ("rate", float("nan")),
        ("rate", float("inf")),
        ("rate", 1e-9),
        ("rate", 1e7),
        ("burst", None),
        ("burst", 0),
        ("burst", -1),
        ("burst", 2**31 - 1),
    ],
)
def test_bad_arguments_are_refused_by_name(conn: psycopg.Connection, argument: str, bad: Any) -> None:
    """RQ001; nothing is written."""
    arguments = {"key": "queue:q", "rate": 1.0, "burst": 1, argument: bad}
    error = refused(conn, "reproq_limit_set", **arguments)
    assert error.sqlstate == "RQ001"
    assert f"p_{argument}" in str(error)
    assert rows(conn, "select from rate_limits where key <> 'global'") == []


@pytest.mark.parametrize(("rate", "burst"), [(0.000001, 1), (1000000, 1000000), (0, 1000000), (1e-6, 1000000)])
def test_rates_and_bursts_at_the_ends(conn: psycopg.Connection, rate: float, burst: int) -> None:
    """They work: a bucket gives its burst."""
    call(conn, "reproq_limit_set", key="queue:default", rate=rate, burst=burst)
    add_many(conn, 3)
    assert len(claim(conn)) == min(3, burst)


@pytest.mark.parametrize("rate", [1e-45, 1e-30, 3e38, "Infinity", "NaN"])
def test_limit_bucket_that_another_program_wrote_stops_no_other_work(
    conn: psycopg.Connection, rate: float | str
) -> None:
    """Whatever rate stands in a bucket's row, claims and looks at it answer."""
    for key in ("queue:default", "task:app.tasks.slow"):
        conn.execute("insert into rate_limits values (%s, %s, 1, 0, now())", [key, rate])
    slow, other = add(conn, task_path="app.tasks.slow"), add(conn, queue_name="other")
    assert other in claimed_ids(conn, queues=["default", "other"])
    assert next_wake(conn, "default", "other") is not None
    for look in ("reproq_limits", "reproq_queues", "reproq_metrics()"):
        rows(conn, SQL("select * from {}").format(SQL(look)))
    call(conn, "reproq_explain", result_id=slow)


def test_limit_deep_queue_is_relabelled_in_part_and_limited_in_whole(conn: psycopg.Connection, clock: Clock) -> None:
    """A call moves a bounded number of tasks; claims move those that they meet, and keep to the bucket."""
    conn.execute(
        "insert into task_runs (spec_json, spec_hash, queue_name)"
        " select '{\"task_path\": \"app.tasks.run\"}', n::text, case n % 2 when 0 then 'default' else 'a' end"
        " from generate_series(1, 4000) n"
    )
    other = add(conn, task_path="app.tasks.other")
    limit_set(conn, "task:app.tasks.run", 0.001, 3)
    labels = "select queue_name, count(*) from task_runs where limit_key = 'task:app.tasks.run' group by 1 order by 1"
    assert rows(conn, labels) == [("a", 250), ("default", 250)]
    started = []
    for _ in range(50):
        started += claim(conn, 10)
    assert len(started) == 4
    assert other in [t.result_id for t in started]
    assert rows(conn, labels)[1] == ("default", 2000)
