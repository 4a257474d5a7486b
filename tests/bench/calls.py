"""What single calls cost: CPU of the server's processes, by the kernel's count in /proc/PID/schedstat.

That count includes the commit, and hardly depends on other load, as time by the clock does.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from tests.bench.measuring import Bench, Bound, Report, settle, until_it_holds
from tests.bench.workers import TASKS, a_worker
from tests.support.backlogs import READY, add_backlog
from tests.support.database import wait_until

BLOCKS = 6
BLOCK = 100  # calls of one kind that follow each other, as in a worker
IDLE_TASKS = 60
PAUSE = 0.1  # seconds: the worker has gone to sleep again

CLAIM: LiteralString = "select result_id, lease_token from reproq_claim('bench', '{default}', 1, interval '5 min')"
EMPTY: LiteralString = "select result_id, lease_token from reproq_claim('bench', '{none}', 1, interval '5 min')"
COMPLETE: LiteralString = """
    select * from reproq_complete(array[%(id)s]::bigint[], array[%(token)s]::uuid[], array['1'::jsonb])
"""
COMPLETE_AND_CLAIM: LiteralString = """
    select result_id, lease_token
    from reproq_complete_and_claim(array[%(id)s]::bigint[], array[%(token)s]::uuid[], array['1'::jsonb], null, null,
                                   'bench', '{default}', 1, interval '5 min')
    where answer is null
"""
NEXT_WAKE: LiteralString = "select reproq_next_wake('{default}')"
BARE_CLAIM: LiteralString = """
    update task_runs
    set status = 'RUNNING', attempts = attempts + 1, revision = revision + 1, started_at = now(),
        last_attempted_at = now(), updated_at = now(), leased_until = now() + interval '5 min', leased_by = 'bench',
        lease_token = gen_random_uuid(), worker_ids = worker_ids || '"bench"'
    where result_id = %(id)s
    returning result_id, lease_token
"""
BARE_COMPLETE: LiteralString = """
    update task_runs
    set status = 'SUCCESSFUL', return_json = '1', finished_at = now(), updated_at = now(), revision = revision + 1,
        last_token = lease_token, last_answer = 'ok', lease_token = null, leased_until = null, leased_by = null
    where result_id = %(id)s
    returning result_id
"""
_LAST_READY: LiteralString = "select result_id from task_runs where status = 'READY' order by result_id desc limit %s"


def single_calls(bench: Bench) -> Report:
    """A claim and a completion of one task, compared with two UPDATEs by id that set the same columns, triggers off.

    Bound with durable commits, as users have them. Without the flush of the commit (`asynchronous`) there is less that
    both sides share, and the ratio is higher: reported, not bound.
    """

    def measure() -> Report:
        numbers: dict[str, Any] = {}
        for name, setting in (("durable", "on"), ("asynchronous", "off")):
            with bench.database() as database, database.connect() as session:
                session.execute("select set_config('synchronous_commit', %s, false)", [setting])
                add_backlog(session, 8 * BLOCKS * BLOCK, READY)
                settle(session)
                found = _costs_of_calls(session)
            numbers[name] = {"microseconds": found, "ratio": round(_ratio(found), 2)}
        ratio = numbers["durable"]["ratio"]
        return Report(numbers, [Bound("claim(1) and complete(1) / two bare UPDATEs", ratio, 1.7)])

    return until_it_holds(measure)


def idle_task(bench: Bench) -> Report:
    """One task given to an idle worker with `--executor pool`: CPU of all its sessions until it sleeps again.

    Compared with the two bare UPDATEs, each made as seldom by a session of its own: caches are cold after a sleep, and
    that doubles the cost of any call and depends on the machine.
    """

    def measure() -> Report:
        with (
            bench.database() as database,
            a_worker(database, "--executor", "pool"),
            database.connect() as producer,
            database.connect() as claimer,
            database.connect() as completer,
        ):
            add_backlog(producer, 2 * IDLE_TASKS, {**READY, "run_after": "now() + interval '1 day'"})
            _run_first_task(producer)
            sessions = _sessions_of_workers(producer)
            tasks, bare = [], []
            for session in (claimer, completer):
                session.execute("set session_replication_role = replica")
            for (result_id,) in producer.execute(_LAST_READY, [IDLE_TASKS]).fetchall():
                tasks.append(_cost_of(sessions, lambda: _enqueue(producer)))
                bare.append(
                    _cost_of(_pids(claimer), partial(_run_bare, claimer, BARE_CLAIM, result_id))
                    + _cost_of(_pids(completer), partial(_run_bare, completer, BARE_COMPLETE, result_id))
                )
        microseconds = {"task": statistics.median(tasks[5:]), "bare": statistics.median(bare[5:])}  # the first warm up
        ratio = round(microseconds["task"] / microseconds["bare"], 2)
        numbers = {"microseconds": {name: round(value) for name, value in microseconds.items()}}
        return Report(numbers, [Bound("a task / two bare UPDATEs", ratio, 2.0)])

    return until_it_holds(measure)


def _costs_of_calls(session: psycopg.Connection) -> dict[str, float]:
    """The median of each call, in microseconds; blocks of calls take turns."""
    costs: dict[str, list[float]] = {}

    def call(name: str, statement: LiteralString, params: Mapping[str, object] | None = None) -> list[Any]:
        before = _cpu(session.info.backend_pid)
        rows = session.execute(statement, params, prepare=True).fetchall()
        costs.setdefault(name, []).append(_cpu(session.info.backend_pid) - before)
        return rows

    for _ in range(BLOCKS):
        for _ in range(BLOCK):
            ((result_id, token),) = call("claim", CLAIM)
            call("complete", COMPLETE, {"id": result_id, "token": token})
        held = session.execute(CLAIM).fetchall()
        for _ in range(BLOCK):
            held = call("complete_and_claim", COMPLETE_AND_CLAIM, dict(zip(("id", "token"), held[0], strict=True)))
        for _ in range(BLOCK):
            call("empty_claim", EMPTY)
            call("next_wake", NEXT_WAKE)
        with _without_triggers(session):
            for (result_id,) in session.execute(_LAST_READY, [BLOCK]).fetchall():
                call("bare_claim", BARE_CLAIM, {"id": result_id})
                call("bare_complete", BARE_COMPLETE, {"id": result_id})
    return {name: round(statistics.median(taken), 1) for name, taken in costs.items()}


@contextmanager
def _without_triggers(session: psycopg.Connection) -> Iterator[None]:
    session.execute("set session_replication_role = replica")
    yield
    session.execute("reset session_replication_role")


def _ratio(costs: Mapping[str, float]) -> float:
    return (costs["claim"] + costs["complete"]) / (costs["bare_claim"] + costs["bare_complete"])


def _cpu(pid: int) -> float:
    """Microseconds of CPU that a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e3


def _sessions_of_workers(producer: psycopg.Connection) -> list[int]:
    query = """
        select pid from pg_stat_activity where datname = current_database() and application_name = 'reproq-listen'
    """
    return [pid for (pid,) in producer.execute(query).fetchall()]


def _run_first_task(producer: psycopg.Connection) -> None:
    """After this the worker has all its connections."""
    _enqueue(producer)
    query = "select from task_runs where status = 'SUCCESSFUL'"
    wait_until(lambda: producer.execute(query).fetchone() is not None, what="a task has run")


def _enqueue(producer: psycopg.Connection) -> None:
    producer.execute("select reproq_enqueue(p_task_path => %s)", [f"{TASKS}.nothing"])


def _pids(session: psycopg.Connection) -> list[int]:
    return [session.info.backend_pid]


def _run_bare(session: psycopg.Connection, statement: LiteralString, result_id: int) -> None:
    session.execute(statement, {"id": result_id}, prepare=True)


def _cost_of(sessions: Sequence[int], work: Callable[[], None]) -> float:
    """Microseconds that sessions take for some work, until they have slept for a while."""
    before = sum(map(_cpu, sessions))
    work()
    threading.Event().wait(PAUSE)
    return sum(map(_cpu, sessions)) - before
