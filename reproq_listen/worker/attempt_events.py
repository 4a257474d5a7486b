"""The log events about attempts: what they printed, and what the database answered to their results."""

from __future__ import annotations

import logging
from collections import Counter

from reproq_listen.db.worker_queries import Answer
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.model import CapturedOutput, ClaimedTask, Outcome
from reproq_listen.protocol.envelope import shorten
from reproq_listen.worker.result_writer import Answers, AttemptResult, ResultKind

_MAX_SUCCESS_LINES = 10  # for the results stored by one call
_MAX_OUTPUT = 2000  # bytes of a stream

_EVENTS_BY_KIND = {
    "cancelled": Event.TASK_CANCELLED,
    "security_violation": Event.TASK_REJECTED,
    "invalid_spec": Event.TASK_INVALID,
    "invalid_result": Event.TASK_INVALID,
    "payload_too_large": Event.TASK_INVALID,
    "crashed": Event.TASK_INFRA_ERROR,
    "lease_expiry": Event.TASK_INFRA_ERROR,
}
_SUCCESSES = (ResultKind.COMPLETE, ResultKind.COMPLETE_AND_ENQUEUE)
_POSTPONED = {"snoozed": Event.TASK_SNOOZED, "throttled": Event.TASK_THROTTLED}


def attempt_fields(task: ClaimedTask) -> dict[str, object]:
    """The fields that identify an attempt. Only a part of the lease token: the whole is a capability."""
    return {
        "task_id": task.result_id,
        "queue": task.queue_name,
        "task_path": task.task_path,
        "attempt": task.attempts,
        "lease": str(task.lease_token)[:8],
    }


def log_ended(log: Log, task: ClaimedTask, outcome: Outcome, seconds: float) -> None:
    """Log the end of an attempt, its warnings and its output."""
    if log.is_enabled_for(logging.DEBUG):
        error = outcome.error
        log.debug(
            Event.TASK_ENDED,
            **attempt_fields(task),
            seconds=seconds,
            kind=error.kind if error else None,
            crash_class=error.crash_class if error else None,
        )
    for warning in outcome.warnings:
        log.warning(Event.TASK_WARNING, **attempt_fields(task), message=warning)
    # The stdout of an executor that is not ours holds the result, which is never logged.
    stdout = None if outcome.is_result_on_stdout else outcome.stdout
    for stream, output in (("stdout", stdout), ("stderr", outcome.stderr)):
        if output is not None and output.total:
            log.info(Event.TASK_OUTPUT, **attempt_fields(task), stream=stream, bytes=output.total, text=_text(output))


def log_child_output(log: Log, pid: int, output: CapturedOutput) -> None:
    """Log output of a pool child that belongs to no known task."""
    log.info(Event.CHILD_OUTPUT, pid=pid, bytes=output.total, text=_text(output))


def _text(output: CapturedOutput) -> str:
    return shorten((output.head + output.tail).decode(errors="replace"), _MAX_OUTPUT)


def log_answers(log: Log, answers: Answers) -> None:
    """Log what the database answered to results.

    Many successes get one line: a line for each would cost more than the tasks. At level debug, for /events and
    metrics, each still has its event.
    """
    good = [result.task for result, answer in answers if result.kind in _SUCCESSES and answer.answer != "lost"]
    if len(good) > _MAX_SUCCESS_LINES:
        log.info(Event.TASKS_SUCCEEDED, count=len(good), by_path=Counter(task.task_path for task in good))
        level = logging.DEBUG
    else:
        level = logging.INFO
    if len(good) == len(answers) and not log.is_enabled_for(level):
        return
    for result, answer in answers:
        _log_answer(log, result, answer, level)


def _log_answer(log: Log, result: AttemptResult, answer: Answer, success_level: int) -> None:
    fields = attempt_fields(result.task)
    if answer.answer == "lost":
        log.warning(Event.LEASE_LOST, **fields)
    elif answer.answer == "succeeded":
        if result.kind is not ResultKind.FAIL or result.error_kind == "completion_lost":
            log.info(Event.TASK_SUCCESS, **fields)
            return
        message = f"the attempt had completed in its own transaction; what came after is not stored: {result.summary}"
        log.warning(Event.TASK_WARNING, **fields, message=message.removesuffix(": "))
        log.info(Event.TASK_SUCCESS, **fields)
    elif answer.answer == "cancelled":
        log.warning(Event.TASK_CANCELLED, **fields)
    elif result.kind is ResultKind.RELEASE:
        log.info(Event.TASK_RELEASED, **fields, reason=result.summary or None)
    elif result.kind in _SUCCESSES:
        log_success = log.info if success_level == logging.INFO else log.debug
        log_success(Event.TASK_SUCCESS, **fields)
    else:
        fields |= {"kind": result.error_kind, "error": result.summary}
        if answer.delay is not None and result.error_kind in _POSTPONED:
            log.info(_POSTPONED[result.error_kind], **fields, due_in=max(0.0, answer.delay))
        elif answer.delay is not None:
            log.warning(Event.TASK_RETRY, **fields, retry_in=max(0.0, answer.delay))
        else:
            log.warning(_EVENTS_BY_KIND.get(result.error_kind, Event.TASK_FAILED), **fields)
