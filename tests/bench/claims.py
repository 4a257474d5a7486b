"""What a claim of ten costs: at any depth, behind backlogs that cannot run, with many priorities, over dead rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import LiteralString

import psycopg
from psycopg.types.json import Jsonb

from tests.bench.measuring import Bench, Bound, Report, claim, interleaved, settle, timed_call, until_it_holds
from tests.support.backlogs import READY, RUNNING, add_backlog

ROUNDS = 25
FREE: Mapping[str, LiteralString] = {**READY, "priority": "n % 3"}
AHEAD: Mapping[str, LiteralString] = {
    **READY,
    "priority": "5 + n % 3",
    "enqueued_at": "now() - interval '2 hours' + n * interval '1 microsecond'",
}
BUSY: Mapping[str, LiteralString] = {**AHEAD, "lock_key": "'busy'"}


def depth(bench: Bench) -> Report:
    """Claim of ten at 1 thousand, 100 thousand and 1 million READY tasks in three priorities, aging on."""
    with ExitStack() as stack:
        variants = {}
        for number in (1_000, 100_000, 1_000_000):
            connection = _filled(bench, stack, partial(_add, number, FREE))
            variants[f"{number}"] = partial(_claim_ten, connection)

        def measure() -> Report:
            medians = interleaved(variants, ROUNDS)
            ratio = max(medians.values()) / min(medians.values())
            return Report({"median_ms": medians}, [Bound("slowest / fastest", round(ratio, 2), 1.3)])

        return until_it_holds(measure)


def backlogs(bench: Bench) -> Report:
    """The same with 100 thousand READY tasks ahead that cannot run: of a busy key, throttled, due tomorrow.

    Tasks of a busy key are blocked when they are inserted; `busy_key` is the case in which they are not.
    """
    with ExitStack() as stack:
        variants = {}
        for name, fill in _BACKLOGS.items():
            connection = _filled(bench, stack, fill)
            variants[name] = partial(_claim_ten, connection)

        def measure() -> Report:
            medians = interleaved(variants, ROUNDS)
            report = Report({"median_ms": medians})
            for name in ("blocked", "throttled", "tomorrow"):
                report.bounds.append(Bound(f"{name} / free", round(medians[name] / medians["free"], 2), 1.5))
            return report

        return until_it_holds(measure)


def priorities(bench: Bench) -> Report:
    """Claim of ten, and next_wake, at 3 to 1 million distinct priorities, aging on, with tasks that are due later."""
    with ExitStack() as stack:
        claims: dict[str, Callable[[], float]] = {}
        wakes: dict[str, Callable[[], float]] = {}
        for number, priority in _PRIORITIES.items():
            connection = _filled(bench, stack, partial(_add_priorities, max(number, 40_000), priority))
            claims[f"{number}"] = partial(_claim_ten, connection)
            wakes[f"{number}"] = partial(timed_call, connection, _next_wake)

        def measure() -> Report:
            claim_ms, wake_ms = interleaved(claims, ROUNDS), interleaved(wakes, ROUNDS)
            report = Report({"median_ms": claim_ms, "next_wake_ms": wake_ms})
            for name in list(claims)[1:]:
                report.bounds.append(Bound(f"claim, {name} / 3", round(claim_ms[name] / claim_ms["3"], 2), 2))
                report.bounds.append(Bound(f"next_wake, {name} / 3", round(wake_ms[name] / wake_ms["3"], 2), 2))
            return report

        return until_it_holds(measure)


def dead_rows(bench: Bench) -> Report:
    """Claim of ten when 100 thousand dead entries stand ahead that an old snapshot keeps from being removed."""
    with ExitStack() as stack:
        connection = _filled(bench, stack, partial(_add, 101_000, READY))
        claim(connection, 10)  # compiles and plans
        before = timed_call(connection, lambda session: claim(session, 10))
        old = stack.enter_context(psycopg.connect(connection.info.dsn))
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from task_runs")
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")
            connection.execute("delete from task_runs where result_id <= 100000")
        [*_, (_, _, priority, since)] = claim(connection, 10)
        hint = Jsonb([
            {"queue_name": "default", "limit_key": "", "priority": priority, "since": since.isoformat()}
        ])  # fmt: skip
        variants: dict[str, Callable[[], float]] = {
            "without_hint": partial(timed_call, connection, lambda session: claim(session, 10)),
            "with_hint": partial(timed_call, connection, lambda session: claim(session, 10, hint)),
        }
        return Report({"before_ms": round(before, 3), "median_ms": interleaved(variants, 10)})


def _filled(bench: Bench, stack: ExitStack, fill: Callable[[psycopg.Connection], None]) -> psycopg.Connection:
    database = stack.enter_context(bench.database())
    connection = stack.enter_context(database.connect())
    fill(connection)
    settle(connection)
    return connection


def _add(number: int, columns: Mapping[str, LiteralString], owner: psycopg.Connection) -> None:
    add_backlog(owner, number, columns)


def _add_priorities(number: int, priority: LiteralString, owner: psycopg.Connection) -> None:
    waited: dict[str, LiteralString] = {"enqueued_at": "now() - n % 3600 * interval '1 second'"}
    add_backlog(owner, number, {**READY, **waited, "priority": priority})
    later: dict[str, LiteralString] = {"run_after": "now() + n * interval '1 second'"}
    add_backlog(owner, 1_000, {**READY, **waited, **later, "priority": priority}, after=1_000)


def _next_wake(session: psycopg.Connection) -> None:
    session.execute("select reproq_next_wake('{default}')")


def _claim_ten(connection: psycopg.Connection) -> float:
    def run(session: psycopg.Connection) -> None:
        taken = len(claim(session, 10))
        assert taken == 10, f"the claim found {taken} tasks"

    return timed_call(connection, run)


def _free(owner: psycopg.Connection) -> None:
    add_backlog(owner, 10_000, FREE)


def _blocked(owner: psycopg.Connection) -> None:
    _free(owner)
    add_backlog(owner, 1, {**RUNNING, "lock_key": "'busy'"})
    add_backlog(owner, 100_000, BUSY, triggers=True)


def _throttled(owner: psycopg.Connection) -> None:
    _free(owner)
    owner.execute("select reproq_limit_set('task:app.tasks.slow', 0.0001, 1)")
    owner.execute(
        "update rate_limits set current_tokens = 0, last_refilled_at = now() where key = 'task:app.tasks.slow'"
    )
    slow: dict[str, LiteralString] = {
        "task_path": "'app.tasks.slow'",
        "spec_json": """'{"v": 1, "task_path": "app.tasks.slow", "args": [], "kwargs": {}}'::jsonb""",
    }
    add_backlog(owner, 100_000, {**AHEAD, **slow}, triggers=True)


def _tomorrow(owner: psycopg.Connection) -> None:
    _free(owner)
    add_backlog(owner, 100_000, {**AHEAD, "run_after": "now() + interval '1 day'"}, triggers=True)


_PRIORITIES: dict[int, LiteralString] = {
    3: "n % 3",
    200: "n % 200",
    1_000: "n % 1000",
    50_000: "n * 7919 % 50000",
    1_000_000: "(n * 7919::bigint % 1000003)::integer",
}
_BACKLOGS = {"free": _free, "blocked": _blocked, "throttled": _throttled, "tomorrow": _tomorrow}
