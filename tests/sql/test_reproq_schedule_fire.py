"""reproq_schedule_fire: occurrences happen once, missed and overlapping ones by the schedule's policy."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.sql.calls import call, claim, complete, refused, rows, task, value
from tests.sql.schedules import CRON, STEP, due, fire, row, schedule
from tests.support.database import Clock


def test_schedule_fire_new_schedule_counts_from_now(conn: psycopg.Connection, clock: Clock, start: datetime) -> None:
    """It is looked at at once, to be planned; nothing before its making ever runs."""
    schedule(conn)
    (looked,) = due(conn)
    assert (looked.name, looked.since, looked.now) == ("s", start, start)
    assert [r.answer for r in fire(conn, [start - STEP, start], start + STEP)] == ["planned"]
    assert due(conn) == []
    assert value(conn, "select reproq_next_beat()") == STEP
    assert row(conn).last_run_at is None


def test_schedule_fire_due_occurrence_is_enqueued_once(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """The task carries the schedule's name and the occurrence; the next is planned; a second beat changes nothing."""
    clock.set(planned)
    (looked,) = due(conn)
    ((at, result_id, answer),) = fire(conn, [planned], planned + STEP)
    assert (at, answer) == (planned, "enqueued")
    spec = task(conn, result_id).spec_json
    assert (spec["periodic_name"], spec["scheduled_at"]) == ("s", "2026-03-10T12:05:00+00:00")
    assert (spec["task_path"], spec["args"], spec["kwargs"]) == ("app.tasks.tick", [], {})
    assert (row(conn).last_run_at, row(conn).next_run_at) == (planned, planned + STEP)
    late = call(
        conn,
        "reproq_schedule_fire",
        **{name: getattr(looked, name) for name in ("name", "cron_expr", "time_zone", "since")},
        occurrences=[planned],
        next_run_at=planned + STEP,
    )
    assert late == []
    assert value(conn, "select count(*) from task_runs") == 1


def test_schedule_fire_occurrence_never_happens_twice(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """Even when another program sets last_run_at back: the primary key of periodic_occurrences holds."""
    clock.set(planned)
    (first,) = fire(conn, [planned], planned + STEP)
    conn.execute("update periodic_tasks set last_run_at = %s", [planned - STEP])
    (again,) = fire(conn, [planned], planned + STEP)
    assert (again.answer, again.result_id) == ("already", first.result_id)
    assert value(conn, "select count(*) from task_runs") == 1


def test_schedule_fire_only_what_is_due_counts(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """Occurrences a beat sends by mistake, in the future or before the last run or twice, do nothing."""
    clock.set(planned)
    sent = [planned - STEP, planned, planned, planned + STEP]
    assert [(r.scheduled_at, r.answer) for r in fire(conn, sent, planned + STEP)] == [(planned, "enqueued")]


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [
        ("one", ["missed", "missed", "enqueued"]),
        ("all", ["enqueued", "enqueued", "enqueued"]),
        ("skip", ["missed", "missed", "missed"]),
    ],
)
def test_missed_runs_follow_the_policy(
    conn: psycopg.Connection, clock: Clock, planned: datetime, misfire: str, expected: list[str]
) -> None:
    """No beat ran for three occurrences: one makes up for the last, all for each, skip for none."""
    schedule(conn, misfire=misfire)
    clock.set(planned + 2 * STEP + timedelta(minutes=2))
    missed = [planned, planned + STEP, planned + 2 * STEP]
    assert [r.answer for r in fire(conn, missed, planned + 3 * STEP)] == expected
    assert row(conn).last_run_at == planned + 2 * STEP


def test_skip_still_runs_what_is_less_than_a_minute_late(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """A beat that wakes some seconds late has missed nothing."""
    schedule(conn, misfire="skip")
    clock.set(planned + timedelta(seconds=59))
    assert [r.answer for r in fire(conn, [planned], planned + STEP)] == ["enqueued"]


def test_schedule_fire_all_makes_up_for_a_hundred_at_most(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """The last hundred."""
    schedule(conn, misfire="all")
    missed = [planned + n * STEP for n in range(120)]
    clock.set(missed[-1])
    answers = [r.answer for r in fire(conn, missed, missed[-1] + STEP)]
    assert answers == ["missed"] * 20 + ["enqueued"] * 100


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("allow", ["enqueued", "enqueued", "enqueued"]),
        ("skip", ["enqueued", "overlap", "overlap"]),
        ("queue_one", ["enqueued", "enqueued", "overlap"]),
    ],
)
def test_overlapping_runs_follow_the_policy(
    conn: psycopg.Connection, clock: Clock, planned: datetime, overlap: str, expected: list[str]
) -> None:
    """While the first run has not ended; and after it has, the next one goes again."""
    schedule(conn, overlap=overlap)
    answers, at = [], planned
    for _ in expected:
        clock.set(at)
        answers += [r.answer for r in fire(conn, [at], at + STEP)]
        at += STEP
    assert answers == expected
    while running := claim(conn, 10):
        complete(conn, *running)
    clock.set(at)
    assert [r.answer for r in fire(conn, [at], at + STEP)] == ["enqueued"]


def test_schedule_fire_overlap_that_was_left_out_never_comes_back(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """Its occurrence is settled: later looks do not count it as missed."""
    schedule(conn, overlap="skip", misfire="all")
    clock.set(planned)
    fire(conn, [planned], planned + STEP)
    clock.set(planned + STEP)
    assert [r.answer for r in fire(conn, [planned + STEP], planned + 2 * STEP)] == ["overlap"]
    conn.execute("update periodic_tasks set last_run_at = %s", [planned])
    assert [r.answer for r in fire(conn, [planned + STEP], planned + 2 * STEP)] == ["already"]


def test_schedule_fire_schedule_that_changed_meanwhile_is_looked_at_again(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """What was computed from the old expression, zone or last run is not used."""
    clock.set(planned)
    assert fire(conn, [planned], None, cron_expr="0 0 * * *") == []
    assert fire(conn, [planned], None, time_zone="Europe/Vienna") == []
    assert fire(conn, [planned], None, since=planned) == []
    conn.execute("update periodic_tasks set enabled = false")
    assert call(conn, "reproq_schedule_fire", name="s", cron_expr=CRON, time_zone="UTC", since=planned - STEP,
                occurrences=[planned], next_run_at=None) == []  # fmt: skip
    assert value(conn, "select count(*) from task_runs") == 0


def test_schedule_fire_schedule_without_a_next_run_is_left_alone(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """Null: never again. It asks for no beat."""
    clock.set(planned)
    fire(conn, [planned], None)
    assert value(conn, "select reproq_next_beat()") is None
    assert rows(conn, "select next_run_at from reproq_schedules")[0].next_run_at is None


@pytest.mark.parametrize(
    ("payload", "args", "kwargs"),
    [
        ({}, [], {}),
        ({"args": [1]}, [1], {}),
        ({"args": [1], "kwargs": {"a": 2}}, [1], {"a": 2}),
        ({"a": 2}, [], {"a": 2}),
        ([1, 2], [1, 2], {}),
        ("text", [], {}),
        (None, [], {}),
    ],
)
def test_payload_json_as_others_write_it(
    conn: psycopg.Connection, clock: Clock, planned: datetime, payload: Any, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """An object of args and kwargs; an array is args; any other object is kwargs; a scalar counts as nothing."""
    conn.execute("update periodic_tasks set payload_json = %s", [Jsonb(payload)])
    clock.set(planned)
    (fired,) = fire(conn, [planned], planned + STEP)
    spec = task(conn, fired.result_id).spec_json
    assert (spec["args"], spec["kwargs"]) == (args, kwargs)


def test_schedule_fire_row_as_django_writes_it(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """Attempts and limits that no task may have are mended; empty keys are no keys."""
    conn.execute("update periodic_tasks set max_attempts = 0, concurrency_key = '', concurrency_limit = -1")
    clock.set(planned)
    (fired,) = fire(conn, [planned], planned + STEP)
    found = task(conn, fired.result_id)
    assert (found.max_attempts, found.concurrency_key, found.concurrency_limit) == (1, None, 0)


def test_old_occurrences_are_forgotten(conn: psycopg.Connection, clock: Clock, planned: datetime) -> None:
    """A month and the latest hundred are kept; the table does not grow for ever."""
    conn.execute(
        "insert into periodic_occurrences select 's', %s::timestamptz - n * interval '1 day'"
        " from generate_series(1, 150) n",
        [planned],
    )
    clock.set(planned)
    fire(conn, [planned], planned + STEP)
    assert value(conn, "select count(*) from periodic_occurrences") == 100


def test_occurrences_of_a_month_are_kept_however_many(
    conn: psycopg.Connection, clock: Clock, planned: datetime
) -> None:
    """A schedule of every minute has thousands: a beat that is late by hours must not run them again."""
    conn.execute(
        "insert into periodic_occurrences select 's', %s::timestamptz - n * interval '1 minute'"
        " from generate_series(1, 150) n",
        [planned],
    )
    clock.set(planned)
    fire(conn, [planned], planned + STEP)
    assert value(conn, "select count(*) from periodic_occurrences") == 151


def test_schedule_fire_beat_steps_over_a_row_that_another_session_holds_and_skips_what_it_cannot_read(
    conn: psycopg.Connection, clock: Clock, start: datetime
) -> None:
    """p_skip keeps unreadable rows from standing in front of others, in the look and in the timer."""
    schedule(conn, "bad")
    schedule(conn, "good")
    assert [found.name for found in call(conn, "reproq_schedules_due", skip=["bad"])] == ["good"]
    assert [found.name for found in call(conn, "reproq_schedules_due", limit=1)] == ["bad"]
    fire(conn, [], start + STEP, "good")
    assert value(conn, "select reproq_next_beat()") == timedelta(0)
    assert value(conn, "select reproq_next_beat(array['bad'])") == STEP
    assert value(conn, "select reproq_next_beat(null)") == timedelta(0)


def test_bad_limits_are_refused(conn: psycopg.Connection) -> None:
    """0 and below."""
    for limit in (0, -1):
        assert refused(conn, "reproq_schedules_due", limit=limit).sqlstate == "RQ001"


def test_years_that_clients_cannot_read_stop_no_beat(conn: psycopg.Connection, clock: Clock, start: datetime) -> None:
    """Times that another program wrote: since stays within 2000 to 9999."""
    for name, at in (("early", "-infinity"), ("late", "infinity")):
        schedule(conn, name)
        conn.execute(
            "update periodic_tasks set last_run_at = %s, planned = false, next_run_at = %s where name = %s",
            [at, at, name],
        )
    sinces = {found.name: found.since for found in due(conn)}
    assert sinces["late"] == start
    assert sinces["early"].year == 2000
    assert [r.answer for r in fire(conn, [start], start + STEP, "early")] == ["enqueued"]
