"""The beat as a process: exact, woken by writes, unharmed by bad rows, clocks and restarts."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.support.beats import BeatProcess, database_now, set_clock, tasks_of
from tests.support.commands import run
from tests.support.database import Database, wait_until
from tests.support.proxy import Proxy
from tests.support.workers import TASKS, WorkerProcess

NOON = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def add_schedule(session: psycopg.Connection, name: str = "s", cron: str = "* * * * *", **more: str) -> None:
    """As Django or a DBA writes it."""
    columns = {"name": name, "cron_expr": cron, "task_path": f"{TASKS}.beaten", "next_run_at": "2000-01-01", **more}
    session.execute(
        f"insert into periodic_tasks ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})".encode(),
        list(columns.values()),
    )


def test_beat_fires_exactly_when_a_schedule_is_due(database: Database) -> None:
    """Written while the beat sleeps, planned at once, enqueued within a second of its time; no look in between."""
    with database.connect() as session, Proxy(database.dsn) as proxy, BeatProcess(proxy.dsn) as beat:
        beat.wait_for("beat_started")
        set_clock(session, NOON + MINUTE - timedelta(seconds=4))
        add_schedule(session)
        wait_until(lambda: session.execute("select planned from periodic_tasks").fetchone() == (True,), what="planned")
        wait_until(lambda: b"reproq_next_beat" in proxy.statements[-1], what="the beat sleeps")
        before = len(proxy.statements)
        beat.wait_for("schedule_fired")
        assert tasks_of(database, "s") == [NOON + MINUTE]
        assert beat.logged("schedule_fired")[0]["late_seconds"] < 1
        # On a busy machine LISTEN may come this late.
        calls = (b"reproq_schedule", b"reproq_next_beat")
        since = [bytes(each) for each in proxy.statements[before:] if any(call in each for call in calls)]
        assert b"reproq_schedules_due" in since[0]
        assert sum(b"reproq_schedules_due" in statement for statement in since) <= 3


def jump(session: psycopg.Connection, minutes: int) -> None:
    """Move the clock of a sleeping beat, and let it look: a schedule is written, and seen."""
    set_clock(session, NOON + minutes * MINUTE)
    add_schedule(session, f"at {minutes}", "0 0 1 1 *")
    planned = "select planned from periodic_tasks where name = %s"
    wait_until(lambda: session.execute(planned, [f"at {minutes}"]).fetchone() == (True,), what="the beat has looked")


def test_beat_follows_edits_of_a_row_written_by_django(database: Database) -> None:
    """Made with none of our columns, then edited by hand while a beat sleeps for an hour: each change is heeded at
    once, by the columns' own words; a row that is switched off or deleted runs no more."""
    columns = (
        "name, cron_expr, task_path, payload_json, queue_name, priority, max_attempts, concurrency_limit, next_run_at,"
        " enabled, created_at, updated_at"
    )
    with database.connect() as session, BeatProcess(database.dsn, "--interval", "1h") as beat:
        beat.wait_for("beat_started")
        set_clock(session, NOON + MINUTE - timedelta(seconds=3))
        session.execute(
            f"insert into periodic_tasks ({columns}) values"
            " ('s', '0 0 1 1 *', 'a.b', '[1]', 'default', 0, 3, 0, now(), true, now(), now())".encode()
        )
        planned = "select planned and next_run_at = '2027-01-01T00:00Z' from periodic_tasks"
        wait_until(lambda: session.execute(planned).fetchone() == (True,), what="planned for the new year")
        session.execute("update periodic_tasks set cron_expr = '* * * * *', payload_json = '[2]'")
        beat.wait_for("schedule_fired", times=1)
        session.execute("update periodic_tasks set overlap = 'skip'")
        jump(session, 2)
        beat.wait_for("schedule_skipped", overlap=1)
        session.execute("update task_runs set status = 'SUCCESSFUL', finished_at = now()")
        session.execute("update periodic_tasks set misfire = 'all' where name = 's'")
        jump(session, 6)
        beat.wait_for("schedule_skipped", overlap=3)  # the first of four runs; as long as it has not ended no other
        session.execute("update periodic_tasks set enabled = false where name = 's'")
        jump(session, 60)
        assert tasks_of(database, "s") == [NOON + MINUTE, NOON + 3 * MINUTE]
        args = session.execute("select distinct spec_json -> 'args' from task_runs").fetchall()
        assert args == [([2],)]
        session.execute("delete from periodic_tasks")
        beat.process.send_signal(signal.SIGTERM)
        assert beat.process.wait(10) == 0
        assert not beat.plain


def test_beat_once_fires_due_schedules_and_ends(database: Database) -> None:
    """One round: plans, runs what is due, and ends. A second one has nothing to do."""
    with database.connect() as session:
        set_clock(session, NOON)
        add_schedule(session)
        assert run("beat", "--once", "--dsn", database.dsn).code == 0
        assert tasks_of(database, "s") == []
        set_clock(session, NOON + 3 * MINUTE)
        for _ in range(2):
            assert run("beat", "--once", "--dsn", database.dsn).code == 0
        assert tasks_of(database, "s") == [NOON + 3 * MINUTE]
        set_clock(session, NOON + 4 * MINUTE)
        assert run("beat", "--once=true", "--output", "json", "--dsn", database.dsn).json == [{"enqueued": 1}]
        assert run("beat", "-once", "-dsn", database.dsn).out == "nothing is due\n"


def test_beat_bad_rows_do_not_stop_others(database: Database) -> None:
    """What cannot be read or enqueued is reported once, however often it is looked at; once mended it runs."""
    with database.connect() as session:
        set_clock(session, NOON)
        for number in range(120):
            add_schedule(session, f"a{number}", "every day")
        add_schedule(session, "zone", time_zone="Mars/Olympus")
        add_schedule(session, "path")
        session.execute("update periodic_tasks set task_path = '' where name = 'path'")
        add_schedule(session, "z")
        with BeatProcess(database.dsn, "--interval", "1s") as beat:
            planned = "select planned from periodic_tasks where name = 'z'"
            wait_until(lambda: session.execute(planned).fetchone() == (True,), what="the good one is planned")
            set_clock(session, NOON + MINUTE)
            session.execute("update periodic_tasks set cron_expr = '* * * * *' where name = 'a7'")
            beat.wait_for("schedule_fired", schedule="z")
            beat.wait_for("schedule_unreadable", schedule="path")
            session.execute("update periodic_tasks set task_path = 'a.b' where name = 'path'")
            beat.wait_for("schedule_fired", schedule="path")
            set_clock(session, NOON + 2 * MINUTE)
            beat.wait_for("schedule_fired", schedule="a7")
            assert beat.seen("schedule_unreadable", schedule="a8") == 1
            assert beat.seen("schedule_unreadable", schedule="zone") == 1
            assert not beat.plain


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_beat_ends_on_signals(database: Database, number: signal.Signals) -> None:
    """Exit code 0, in good order."""
    with BeatProcess(database.dsn) as beat:
        beat.wait_for("beat_started")
        beat.process.send_signal(number)
        assert beat.process.wait(10) == 0
        beat.wait_for("beat_stopped")


def test_beat_waits_for_a_database_that_is_away(database: Database) -> None:
    """Connections cut, the beat goes on; what fell due meanwhile runs."""
    with database.connect() as session, BeatProcess(database.dsn, "--interval", "1s") as beat:
        beat.wait_for("beat_started")
        set_clock(session, NOON)
        add_schedule(session)
        wait_until(lambda: session.execute("select planned from periodic_tasks").fetchone() == (True,), what="planned")
        session.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and application_name = 'reproq-listen'"
        )
        set_clock(session, NOON + MINUTE)
        beat.wait_for("schedule_fired")
        assert tasks_of(database, "s") == [NOON + MINUTE]


def test_beat_inside_the_worker(database: Database) -> None:
    """worker --beat enqueues and runs; a schedule that is written wakes it."""
    with database.connect() as session, WorkerProcess(database.dsn, "--beat") as worker:
        worker.ready()
        set_clock(session, NOON + MINUTE - timedelta(seconds=2))
        add_schedule(session, task_path=f"{TASKS}.add", payload_json="[1, 2]")
        worker.wait_for("schedule_fired")
        worker.wait_for("task_success")
        assert session.execute("select return_json from task_runs").fetchone() == (3,)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_beat_with_wrong_host_clocks_runs_each_occurrence_once(database: Database, tmp_path: Path) -> None:
    """Two minutes off either way, an hour off: each occurrence once, by the database's clock."""
    with database.connect() as session:
        set_clock(session, NOON)
        for number in range(20):
            add_schedule(session, f"s{number}", f"*/{number % 3 + 1} * * * *", misfire="all")
        beats = []
        try:
            for skew in (-120, 5, 120, 3600):
                folder = tmp_path / str(skew)
                folder.mkdir()
                beats.append(BeatProcess(database.dsn, "--interval", "1s", folder=folder, skew=skew))
            for beat in beats:
                beat.wait_for("beat_started")
            for minute in range(1, 7):
                set_clock(session, NOON + minute * MINUTE)
                wait_until(
                    lambda: (
                        session.execute(
                            "select bool_and(planned and next_run_at > reproq_now()) from periodic_tasks"
                        ).fetchone()
                        == (True,)
                    ),
                    what="all are planned for later",
                )
        finally:
            for beat in beats:
                beat.__exit__(None, None, None)
        assert database_now(session) < NOON + 7 * MINUTE
        for number in range(20):
            step = number % 3 + 1
            assert tasks_of(database, f"s{number}") == [NOON + n * MINUTE for n in range(step, 7, step)]
