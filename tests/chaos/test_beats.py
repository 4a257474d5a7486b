"""Four beats that are killed again and again, on a clock that races, while everybody writes.

With REPROQ_SOAK=10000, ten simulated hours of 200 schedules, as before a release.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import psycopg
import pytest

from reproq_listen.scheduler.cron import Cron
from tests.support.beats import BeatProcess, database_now, set_clock, tasks_of
from tests.support.commands import run
from tests.support.database import Database

SEED = 1
SCHEDULES, SECONDS = (200, 60) if int(os.environ.get("REPROQ_SOAK", "0")) >= 10_000 else (60, 20)
SPEED = 600  # ten minutes a second: three hours or ten, with less than the 100 runs that can be made up for
START = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)  # the clock of Vienna is put forward at 01:00
CRONS = ("*/3 * * * *", "1-59/4 * * * *", "7,37 * * * *", "30 2 * * *", "*/10 1-3 * * *")
ZONES = ("UTC", "Europe/Vienna")
# Django's sync, with a next run by a clock of its own.
SYNC = """
    insert into periodic_tasks (name, cron_expr, task_path, next_run_at)
    select p.name, p.cron_expr, p.task_path, p.next_run_at + (random() - 0.5) * interval '10 minutes'
    from periodic_tasks p
    on conflict (name) do update
    set cron_expr = excluded.cron_expr, next_run_at = excluded.next_run_at, updated_at = now()
"""


@pytest.mark.chaos
@pytest.mark.timeout(100 + SECONDS)
def test_beats_run_each_occurrence_once(database: Database, tmp_path: Path) -> None:
    """Whatever number of beats, whatever their clocks, kills and syncs: not one lost, not one repeated."""
    dice = random.Random(SEED)
    with database.connect() as session:
        set_clock(session, START)
        for number in range(SCHEDULES):
            session.execute(
                "select reproq_schedule_set(%s, %s, 'app.tasks.tick', p_time_zone => %s, p_misfire => 'all')",
                [f"s{number}", CRONS[number % len(CRONS)], ZONES[number % len(ZONES)]],
            )
        made: dict[str, datetime] = dict(session.execute("select name, created_at from periodic_tasks").fetchall())
        kills, syncs = _rage(session, database, tmp_path, dice)
        set_clock(session, database_now(session))  # at the pace of the world again
        assert run("beat", "--once", "--dsn", database.dsn).code == 0
        seen: dict[str, datetime | None] = dict(
            session.execute("select name, last_run_at from periodic_tasks").fetchall()
        )
        assert kills > 5
        assert syncs > 20
    for number in range(SCHEDULES):
        name = f"s{number}"
        cron = Cron(CRONS[number % len(CRONS)], ZONES[number % len(ZONES)])
        last = seen[name]
        expected = [] if last is None else list(takewhile(lambda at: at <= last, cron.after(made[name])))  # noqa: B023
        assert tasks_of(database, name) == expected, f"{name} with seed {SEED}"
        upcoming = cron.next(last or made[name])
        assert upcoming is not None
        assert upcoming > START + timedelta(seconds=SECONDS * SPEED), name


def _rage(session: psycopg.Connection, database: Database, folder: Path, dice: random.Random) -> tuple[int, int]:
    """Run beats, kill one a second or so, sync in between. Gives how many of each."""
    kills = syncs = 0
    skews = (-120, -5, 5, 120)
    beats = [BeatProcess(database.dsn, "--interval", "1s", folder=_home(folder, skew), skew=skew) for skew in skews]
    try:
        for beat in beats:
            beat.wait_for("beat_started")
        set_clock(session, START, SPEED)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(dice.expovariate(3))
            if dice.random() < 0.3:
                place = dice.randrange(len(beats))
                beats[place].process.kill()
                beats[place].__exit__(None, None, None)
                skew = skews[place]
                beats[place] = BeatProcess(database.dsn, "--interval", "1s", folder=_home(folder, skew), skew=skew)
                kills += 1
            else:
                session.execute(SYNC.encode())
                syncs += 1
    finally:
        for beat in beats:
            beat.__exit__(None, None, None)
    return kills, syncs


def _home(folder: Path, skew: int) -> Path:
    home = folder / str(skew)
    home.mkdir(exist_ok=True)
    return home
