"""What a soak leaves behind to be looked at.

What happened is written down where it happens: by the database in the transactions that do it (`HISTORY`), by the
executions (soak_tasks.py), by the workers' logs, and by those who act (soak_actors.py, soak_nemesis.py). soak_checks.py
reads it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg

from tests.support.database import Database
from tests.support.workers import WorkerProcess

TASKS = "tests.apps.soak_tasks"
QUEUES = ("default", "other", "third")
LIMIT = 2  # of the concurrency key

HISTORY: LiteralString = """
    create table soak_history (
        seq bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
        result_id bigint not null, old_status text, new_status text, old_token uuid, new_token uuid,
        attempts integer, max_attempts integer, answer text, queue_name text, lease_end timestamptz);
    create index on soak_history (result_id);
    create function soak_note() returns trigger language plpgsql security definer set search_path from current as $$
    begin
        insert into soak_history (result_id, old_status, new_status, old_token, new_token, attempts, max_attempts,
                                  answer, queue_name, lease_end)
        values (coalesce(new.result_id, old.result_id), old.status, new.status, old.lease_token, new.lease_token,
                coalesce(new.attempts, old.attempts), coalesce(new.max_attempts, old.max_attempts), new.last_answer,
                coalesce(new.queue_name, old.queue_name), old.leased_until);
        return null;
    end $$;
    create trigger soak_made_or_deleted after insert or delete on task_runs for each row execute function soak_note();
    create trigger soak_moved after update on task_runs for each row
    when (old.status <> new.status or old.lease_token is distinct from new.lease_token) execute function soak_note()
"""


class Called(NamedTuple):
    """An operator's call that was answered. Times by the system's monotonic clock."""

    what: str
    about: str | int
    answer: str
    sent: float
    answered: float


@dataclass
class Soak:
    """What a run has left to be looked at."""

    folder: Path
    asked: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What each result id was asked to be, of the enqueue calls that were answered."""
    chains: list[list[int]] = field(default_factory=list)
    chords: list[tuple[list[int], int]] = field(default_factory=list)
    """Members, and the callback."""
    calls: list[Called] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """What the nemesis has done, by kind."""
    frozen: list[tuple[int, float, float]] = field(default_factory=list)
    """Worker's pid, from, to."""
    workers: list[WorkerProcess] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    deserters: list[str] = field(default_factory=list)
    """Workers that ended without a signal."""
    history: list[dict[str, Any]] = field(default_factory=list)
    cuts: int = 0
    """Replies that were really cut off."""
    seconds_to_settle: float = 0.0
    wall_minus_monotonic: float = field(default_factory=lambda: time.time() - time.monotonic())


def read_history(database: Database) -> list[dict[str, Any]]:
    """The rows of `HISTORY`, in the order in which they were written."""
    with database.connect() as session:
        cursor = session.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute("select * from soak_history order by seq").fetchall()
