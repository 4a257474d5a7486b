"""From what a pool child said of a task, or left when it died, to the outcome of the attempt. No process is touched."""

from datetime import timedelta

import msgspec

from reproq_listen.executors.outcome import ExitReport, outcome_of
from reproq_listen.executors.pool.attempt import PoolAttempt
from reproq_listen.executors.process.exits import Exit
from reproq_listen.model import Outcome, ResourceUsage
from reproq_listen.protocol import pool as protocol
from reproq_listen.protocol.envelope import result_outcome


def of_value(attempt: PoolAttempt, body: bytes, account: ResourceUsage) -> Outcome:
    """The task has returned a value: its JSON text."""
    said = result_outcome(body)
    printed = attempt.said(protocol.STDOUT), attempt.said(protocol.STDERR)
    return Outcome(said.result, said.error, usage=account, stdout=printed[0], stderr=printed[1])


def of_failure(attempt: PoolAttempt, body: bytes, account: ResourceUsage, limit: timedelta) -> Outcome:
    """The task has failed, and its child goes on: it has no exit, and no peak of this task alone."""
    alive = Exit(status=0, cpu_seconds=account.cpu_seconds, peak_rss_bytes=0)
    outcome = outcome_of(_remains(attempt, alive, account.wall_seconds, limit, body=body))
    replace = msgspec.structs.replace
    return replace(
        outcome,
        error=replace(outcome.error, peak_rss_bytes=None, exit_status=None) if outcome.error else None,
        usage=account,
    )


def of_end(
    attempt: PoolAttempt, end: Exit, seconds: float, limit: timedelta, problem: str | None, *, saw_oom_kill: bool
) -> Outcome:
    """The child has died while the task ran. `problem`: what was wrong with what it had said."""
    remains = _remains(attempt, end, seconds, limit, problem=problem, saw_oom_kill=saw_oom_kill and end.status != 0)
    return outcome_of(remains)


def _remains(
    attempt: PoolAttempt,
    end: Exit,
    seconds: float,
    limit: timedelta,
    *,
    body: bytes | None = None,
    problem: str | None = None,
    saw_oom_kill: bool = False,
) -> ExitReport:
    return ExitReport(
        end=end,
        wall_seconds=seconds,
        body=body,
        body_problem=problem,
        stdout=attempt.said(protocol.STDOUT),
        stderr=attempt.said(protocol.STDERR),
        stopped=attempt.stopped,
        time_limit_seconds=limit.total_seconds(),
        saw_oom_kill=saw_oom_kill,
    )
