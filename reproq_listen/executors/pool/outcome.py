"""From what a pool child reported, or left behind, to the outcome of an attempt. No process is touched here."""

from datetime import timedelta

import msgspec

from reproq_listen.executors.admission import time_limit
from reproq_listen.executors.outcome import ExitReport, outcome_of
from reproq_listen.executors.pool.attempt import PoolAttempt
from reproq_listen.executors.process.exits import Exit
from reproq_listen.model import Outcome, ResourceUsage
from reproq_listen.protocol import pool as protocol
from reproq_listen.protocol.envelope import result_outcome


def outcome_of_record(
    attempt: PoolAttempt, kind: int, body: bytes, usage: ResourceUsage, exec_timeout: timedelta
) -> Outcome:
    """The child has reported that the task returned or failed (protocol.ENDS).

    The child goes on, so the outcome has no exit status and no peak of memory.
    """
    if kind == protocol.RETURNED:
        checked = result_outcome(body)
        printed = attempt.printed(protocol.STDOUT), attempt.printed(protocol.STDERR)
        return Outcome(checked.result, checked.error, usage=usage, stdout=printed[0], stderr=printed[1])
    alive = Exit(status=0, cpu_seconds=usage.cpu_seconds, peak_rss_bytes=0)
    outcome = outcome_of(_report(attempt, alive, usage.wall_seconds, exec_timeout, body=body))  # FAILED or ENQUEUES
    replace = msgspec.structs.replace
    return replace(
        outcome,
        error=replace(outcome.error, peak_rss_bytes=None, exit_status=None) if outcome.error else None,
        usage=usage,
    )


def outcome_of_exit(
    attempt: PoolAttempt,
    exit_: Exit,
    seconds: float,
    exec_timeout: timedelta,
    problem: str | None,
    *,
    saw_oom_kill: bool,
) -> Outcome:
    """The child has died while the task ran. `problem`: how it broke the protocol before, if it did."""
    saw_oom_kill = saw_oom_kill and exit_.status != 0
    return outcome_of(_report(attempt, exit_, seconds, exec_timeout, problem=problem, saw_oom_kill=saw_oom_kill))


def _report(
    attempt: PoolAttempt,
    exit_: Exit,
    seconds: float,
    exec_timeout: timedelta,
    *,
    body: bytes | None = None,
    problem: str | None = None,
    saw_oom_kill: bool = False,
) -> ExitReport:
    return ExitReport(
        exit=exit_,
        wall_seconds=seconds,
        body=body,
        body_problem=problem,
        stdout=attempt.printed(protocol.STDOUT),
        stderr=attempt.printed(protocol.STDERR),
        stopped=attempt.stopped,
        time_limit_seconds=time_limit(attempt.task, exec_timeout).total_seconds(),
        saw_oom_kill=saw_oom_kill,
    )
