"""From what is left of a child to the outcome of its attempt. Pure: no process is touched here."""

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

    end: Exit
    wall_seconds: float
    body: bytes | None
    """What should be the envelope; None if nothing came."""
    body_problem: str | None
    """Why what came cannot be an envelope (too large, not a frame); None if it may be one."""
    stdout: CapturedOutput
    stderr: CapturedOutput
    stopped: StopReason | None
    time_limit_seconds: float
    """How long it was allowed to run: for the message of a timeout."""
    saw_oom_kill: bool
    """Whether the kernel killed something for want of memory while it ran."""


def outcome_of(remains: ExitReport) -> Outcome:
    """Decide how the attempt ended. A good result counts, whatever happened to its process afterwards."""
    outcome = _judge(remains)
    account = account_of(remains.end, remains.wall_seconds)
    return msgspec.structs.replace(
        outcome,
        error=_with_account(outcome.error, account) if outcome.error is not None else None,
        usage=account,
        stdout=remains.stdout,
        stderr=remains.stderr,
    )


def account_of(end: Exit, wall_seconds: float) -> ResourceUsage:
    """What an attempt used that had a process of its own."""
    status = end.status
    return ResourceUsage(
        wall_seconds=round(wall_seconds, 6),
        cpu_seconds=round(end.cpu_seconds, 6),
        peak_rss_bytes=end.peak_rss_bytes or None,
        exit_status=status if status is not None and status >= 0 else None,
        signal=signal_name(status) if status is not None and status < 0 else None,
    )


def _with_account(error: TaskError, account: ResourceUsage) -> TaskError:
    ran_out = error.exception_class == "MemoryError" and error.crash_class is None
    return msgspec.structs.replace(
        error,
        crash_class="oom" if ran_out else error.crash_class,
        wall_seconds=account.wall_seconds,
        cpu_seconds=account.cpu_seconds,
        peak_rss_bytes=account.peak_rss_bytes,
        exit_status=account.exit_status,
        signal=account.signal,
    )


def _judge(remains: ExitReport) -> Outcome:
    said, problem = _what_it_said(remains)
    if said is not None and said.error is None:
        warning = _unclean_end(remains)
        return msgspec.structs.replace(said, warnings=(warning,)) if warning else said
    if remains.stopped is not None:
        return _failed(_stopped_error(remains, remains.stopped, said))
    if said is not None:
        return said
    if remains.end.status != 0 or problem is None:
        return _failed(_crash(remains, problem))
    message = f"what the executor gave as result cannot be used: {problem}"
    return _failed(TaskError(kind="invalid_result", message=message, stderr_tail=_stderr(remains)))


def _failed(error: TaskError) -> Outcome:
    return Outcome(result=None, error=error)


def _what_it_said(remains: ExitReport) -> tuple[Outcome | None, str | None]:
    """Give the outcome in its envelope, or else what is wrong with it (neither: it said nothing)."""
    if remains.body_problem is not None or not remains.body:
        return None, remains.body_problem
    try:
        return decode_envelope(remains.body), None
    except BadEnvelopeError as error:
        return None, str(error)


def _unclean_end(remains: ExitReport) -> str | None:
    status = remains.end.status
    if not status:
        return None
    if status > 0:
        return f"the task gave its result and then ended with status {status}"
    return f"the task gave its result, and its process was then ended by {signal_name(status)}"


def _stopped_error(remains: ExitReport, reason: StopReason, said: Outcome | None) -> TaskError:
    """The reason of the stop, with what is known about where the task stood."""
    if reason is StopReason.TIMEOUT:
        message = f"the task did not end within {remains.time_limit_seconds:g} seconds"
    else:
        message = _STOP_MESSAGES[reason]
    reported = said.error if said is not None else None
    return TaskError(
        kind=reason.value,
        message=message,
        exception_class=reported.exception_class if reported else None,
        traceback=reported.traceback if reported else None,
        crash_class="timeout" if reason is StopReason.TIMEOUT else None,
        stderr_tail=_stderr(remains),
    )


def _crash(remains: ExitReport, problem: str | None) -> TaskError:
    what = f"; what it said cannot be used: {problem}" if problem else ""
    status = remains.end.status
    if status is None or status >= 0:
        how = "an unknown status" if status is None else f"status {status}"
        message = f"the task's process ended with {how} without a result{what}"
        return TaskError(
            kind="crashed",
            message=message,
            crash_class="exit",
            stderr_tail=_stderr(remains),
        )
    is_oom = remains.saw_oom_kill and -status == signal.SIGKILL
    cause = "the kernel, for want of memory," if is_oom else signal_name(status)
    return TaskError(
        kind="crashed",
        message=f"the task's process was killed by {cause} before it gave a result{what}",
        crash_class="oom" if is_oom else "signal",
        stderr_tail=_stderr(remains),
    )


def _stderr(remains: ExitReport) -> str | None:
    said = remains.stderr
    is_whole = len(said.head) + len(said.tail) == said.total
    end = (said.head + said.tail if is_whole else said.tail)[-STDERR_TAIL_BYTES:]
    return clean_end(end.decode(errors="replace"), STDERR_TAIL_BYTES) or None


def signal_name(status: int) -> str:
    """Name the signal in an exit status below 0."""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"  # a real-time signal has no name
