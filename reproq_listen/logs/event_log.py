"""The events of the log, a closed list, and the log that writes them.

Text from a task or a database is data: it is truncated, and JSON escapes its newlines.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping
from typing import Self


class Event(enum.StrEnum):
    """Every event of the log, and its meaning for the reference. Add a line here before logging something new."""

    _value_: str
    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        event = str.__new__(cls, value)
        event._value_ = value
        event.meaning = meaning
        return event

    WORKER_STARTED = "worker_started", "the worker is in the registry and begins to claim"
    WORKER_DRAINING = "worker_draining", "the worker stops claiming and waits for its running tasks"
    WORKER_KILLING = "worker_killing", "the shutdown timeout is over: running tasks are stopped and given back"
    WORKER_STOPPED = "worker_stopped", "the worker ends"
    TASK_STARTED = "task_started", "an attempt starts; `waited` is the time since the task was due"
    TASK_SUCCESS = "task_success", "a result is stored"
    TASKS_SUCCEEDED = "tasks_succeeded", "many results are stored by one call; stands for their `task_success` lines"
    TASK_FAILED = "task_failed", "an attempt failed, and the task with it"
    TASK_RETRY = "task_retry", "an attempt failed; the next one is due in `retry_in` seconds"
    TASK_SNOOZED = "task_snoozed", "the task asked to be started later, in `due_in` seconds; the attempt is not charged"
    TASK_THROTTLED = (
        "task_throttled",
        "the task asked that none of its path starts for `due_in` seconds; the attempt is not charged",
    )
    TASK_REJECTED = "task_rejected", "the task may not run here: its module is not allowed"
    TASK_INVALID = "task_invalid", "the spec or the result of the task cannot be used"
    TASK_CANCELLED = "task_cancelled", "the task was cancelled"
    TASK_INFRA_ERROR = "task_infra_error", "the process of the attempt died, or its lease could not be renewed"
    TASK_RELEASED = (
        "task_released",
        "an attempt was given back, not charged; `reason` says why, if it had begun to start",
    )
    TASK_WARNING = "task_warning", "something went wrong with an attempt without changing its outcome"
    TASK_OUTPUT = "task_output", "beginning and end of what an attempt printed to one stream"
    CHILD_OUTPUT = (
        "child_output",
        "what programs and C code printed in a child of the pool: it belongs to no known task",
    )
    CANCEL_REQUESTED = "cancel_requested", "a running task is to be cancelled; its process is stopped"
    LEASE_LOST = "lease_lost", "the database gave the task to another attempt; this one is stopped, its result dropped"
    LEASE_NOT_RENEWED = "lease_not_renewed", "the lease is about to expire unrenewed; the attempt is stopped before"
    LEASES_UNKNOWN = "leases_unknown", "the database has leases of this worker that it does not hold; they are returned"
    RESULT_REFUSED = "result_refused", "the database refuses a result for good; the attempt ends as `invalid_result`"
    RESULTS_LOST = "results_lost", "the worker ends before all results were stored; their leases will expire"
    TASKS_RECLAIMED = "tasks_reclaimed", "expired leases were returned; the fields count the answers"
    BEAT_STARTED = "beat_started", "the beat has reached its database"
    BEAT_STOPPED = "beat_stopped", "the beat ends"
    SCHEDULE_FIRED = "schedule_fired", "an occurrence of a schedule was enqueued"
    SCHEDULE_SKIPPED = "schedule_skipped", "occurrences were not enqueued; the fields count the reasons"
    SCHEDULE_UNREADABLE = "schedule_unreadable", "a schedule cannot be read or run; logged again when it changes"
    LISTEN_VERIFIED = "listen_verified", "a test notification came back: LISTEN works"
    LISTENER_DOWN = "listener_down", "LISTEN was accepted and no notification arrives: the worker polls"
    LISTEN_FAILED = "listen_failed", "LISTEN failed: the worker polls and tries again"
    DATABASE_AWAY = "database_away", "a connection to the database is lost; calls are repeated"
    DATABASE_BACK = "database_back", "the lost connection works again"
    DATABASE_REFUSED = "database_refused", "the database refused a call, which is repeated"
    CONTRACT_REFUSED = "contract_refused", "the schema no longer serves this worker's contract: it drains and ends"
    NOTIFY_FAILED = "notify_failed", "the service manager (systemd) did not take a message"
    EXECUTOR_WARNING = "executor_warning", "something is wrong with the executor and not with a task"
    EXECUTOR_PAUSED = (
        "executor_paused",
        "no process can be started for tasks: the worker claims none, and tries again in `retry_in` seconds",
    )
    EXECUTOR_RESUMED = "executor_resumed", "a pause of the executor is over: the worker claims tasks again"
    CODE_RELOADED = "code_reloaded", "tasks that start from now on run the code as it is now"
    CONFIG_WARNING = "config_warning", "a setting is valid and may not do what was intended"
    HTTP_STARTED = "http_started", "the HTTP server listens"
    HTTP_UNPROTECTED = "http_unprotected", "metrics are readable from other hosts without a token"
    MEMORY = "memory", "memory in use by the worker process"
    LIBRARY_MESSAGE = "library_message", "a warning of a library"
    LOG_DROPPED = "log_dropped", "`count` lines were dropped: the reader of the log is too slow"
    # At level debug: the sources of metrics and probes.
    CLAIM_LOOP = "claim_loop", "debug: one turn of the claim loop"
    STOP_ASKED = "stop_asked", "debug: a signal to stop has arrived"
    TASKS_CLAIMED = "tasks_claimed", "debug: duration of a claim and the number of tasks by queue"
    TASK_ENDED = "task_ended", "debug: an attempt ended; its outcome is not stored yet"
    DATABASE_CALLED = "database_called", "debug: duration of a call to the database"
    NOTIFIED = "notified", "debug: a notification arrived"
    LISTEN_ROUND_TRIP = "listen_round_trip", "debug: time that a test notification took"


Tap = Callable[[Event, int, Mapping[str, object]], None]
"""Receives every event, also at level debug: event, logging level, fields. Must be quick and must not raise."""


class Log:
    """Writes events under one logger, with the same fields (worker id and so on) on every line.

    Other readers in the process (metrics, /events, probes) tap the log.
    """

    def __init__(
        self, logger: logging.Logger, fields: Mapping[str, object] | None = None, taps: tuple[Tap, ...] = ()
    ) -> None:
        self._logger = logger
        self._fields = dict(fields or {})
        self._taps = taps

    def bind(self, **fields: object) -> Log:
        """A log that adds these fields to every line."""
        return Log(self._logger, {**self._fields, **fields}, self._taps)

    def tapped(self, *taps: Tap) -> Log:
        """A log that also passes its events to these taps."""
        return Log(self._logger, self._fields, (*self._taps, *taps))

    def is_enabled_for(self, level: int) -> bool:
        """Whether events of this level have a reader: ask before building many."""
        return bool(self._taps) or self._logger.isEnabledFor(level)

    def debug(self, event: Event, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: Event, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: Event, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: Event, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: Event, fields: Mapping[str, object]) -> None:
        for tap in self._taps:
            tap(event, level, {**self._fields, **fields})
        if self._logger.isEnabledFor(level):
            self._logger.log(level, {"event": event.value, **self._fields, **fields})
