"""From what a child left behind to the outcome of its attempt. Pure: no process is touched here."""

import signal

import msgspec
from msgspec import Struct

from reproq_listen.executors.process.exits import Exit
from reproq_listen.model import CapturedOutput, Outcome, ResourceUsage, StopReason, TaskError
from reproq_listen.protocol.envelope import STDERR_TAIL_BYTES, BadEnvelopeError, clean_end, decode_envelope

_STOP_MESSAGES = {
    StopReason.CANCELLED: "the task was cancelled while it ran",
    StopReason.LOST: "the lease was lost while the task ran",
    StopReason.SHUTDOWN: "the worker was shut down while the task ran",
}


class ExitReport(Struct, frozen=True):
    """What a child left behind."""

    exit: Exit
    wall_seconds: float
    body: bytes | None
    """What should be the envelope; None if nothing came."""
    body_problem: str | None
    """Why the received bytes cannot be an envelope (too large, not a frame); None if they may be one."""
    stdout: CapturedOutput
    stderr: CapturedOutput
    stopped: StopReason | None
    time_limit_seconds: float
    """For the message of a timeout."""
    saw_oom_kill: bool
    """Whether the kernel killed a process because memory ran out, while the child ran."""


def outcome_of(report: ExitReport) -> Outcome:
    """Decide how the attempt ended. A good result counts, whatever happened to its process afterwards."""
    outcome = _decide(report)
    usage = usage_of(report.exit, report.wall_seconds)
    return msgspec.structs.replace(
        outcome,
        error=_with_usage(outcome.error, usage) if outcome.error is not None else None,
        usage=usage,
        stdout=report.stdout,
        stderr=report.stderr,
    )


def usage_of(exit_: Exit, wall_seconds: float) -> ResourceUsage:
    """Give what an attempt used that had a process of its own."""
    status = exit_.status
    return ResourceUsage(
        wall_seconds=round(wall_seconds, 6),
        cpu_seconds=round(exit_.cpu_seconds, 6),
        peak_rss_bytes=exit_.peak_rss_bytes or None,
        exit_status=status if status is not None and status >= 0 else None,
        signal=signal_name(status) if status is not None and status < 0 else None,
    )


def _with_usage(error: TaskError, usage: ResourceUsage) -> TaskError:
    ran_out = error.exception_class == "MemoryError" and error.crash_class is None
    return msgspec.structs.replace(
        error,
        crash_class="oom" if ran_out else error.crash_class,
        wall_seconds=usage.wall_seconds,
        cpu_seconds=usage.cpu_seconds,
        peak_rss_bytes=usage.peak_rss_bytes,
        exit_status=usage.exit_status,
        signal=usage.signal,
    )


def _decide(report: ExitReport) -> Outcome:
    reported, problem = _reported_outcome(report)
    if reported is not None and reported.error is None:
        warning = _bad_exit(report)
        return msgspec.structs.replace(reported, warnings=(warning,)) if warning else reported
    if report.stopped is not None:
        return _failed(_stopped_error(report, report.stopped, reported))
    if reported is not None:
        return reported
    if report.exit.status != 0 or problem is None:
        return _failed(_crash(report, problem))
    message = f"the executor's result cannot be used: {problem}"
    return _failed(TaskError(kind="invalid_result", message=message, stderr_tail=_stderr(report)))


def _failed(error: TaskError) -> Outcome:
    return Outcome(result=None, error=error)


def _reported_outcome(report: ExitReport) -> tuple[Outcome | None, str | None]:
    """Give the outcome in the envelope, or else what is wrong with it; neither if there is none."""
    if report.body_problem is not None or not report.body:
        return None, report.body_problem
    try:
        return decode_envelope(report.body), None
    except BadEnvelopeError as error:
        return None, str(error)


def _bad_exit(report: ExitReport) -> str | None:
    status = report.exit.status
    if not status:
        return None
    if status > 0:
        return f"the task gave its result and then ended with status {status}"
    return f"the task gave its result, and its process was then ended by {signal_name(status)}"


def _stopped_error(report: ExitReport, reason: StopReason, reported: Outcome | None) -> TaskError:
    """Give the reason of the stop, with what is known about where the task was."""
    if reason is StopReason.TIMEOUT:
        message = f"the task did not end within {report.time_limit_seconds:g} seconds"
    else:
        message = _STOP_MESSAGES[reason]
    error = reported.error if reported is not None else None
    return TaskError(
        kind=reason.value,
        message=message,
        exception_class=error.exception_class if error else None,
        traceback=error.traceback if error else None,
        crash_class="timeout" if reason is StopReason.TIMEOUT else None,
        stderr_tail=_stderr(report),
    )


def _crash(report: ExitReport, problem: str | None) -> TaskError:
    suffix = f"; its result cannot be used: {problem}" if problem else ""
    status = report.exit.status
    if status is None or status >= 0:
        how = "an unknown status" if status is None else f"status {status}"
        message = f"the task's process ended with {how} without a result{suffix}"
        return TaskError(
            kind="crashed",
            message=message,
            crash_class="exit",
            stderr_tail=_stderr(report),
        )
    is_oom = report.saw_oom_kill and -status == signal.SIGKILL
    killer = "the kernel, because memory ran out," if is_oom else signal_name(status)
    return TaskError(
        kind="crashed",
        message=f"the task's process was killed by {killer} before it gave a result{suffix}",
        crash_class="oom" if is_oom else "signal",
        stderr_tail=_stderr(report),
    )


def _stderr(report: ExitReport) -> str | None:
    stderr = report.stderr
    is_whole = len(stderr.head) + len(stderr.tail) == stderr.total
    end = (stderr.head + stderr.tail if is_whole else stderr.tail)[-STDERR_TAIL_BYTES:]
    return clean_end(end.decode(errors="replace"), STDERR_TAIL_BYTES) or None


def signal_name(status: int) -> str:
    """Name the signal in an exit status below 0."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"  # a real-time signal has no name
