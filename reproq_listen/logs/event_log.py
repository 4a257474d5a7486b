"""What the program logs: a closed list of events, and the log that writes them.

Text that came from a task or a database is data: it is cut, and JSON escapes its newlines.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping


class Event(enum.StrEnum):
    """Everything the program says. Add a line here before logging something new."""

    WORKER_STARTED = "worker_started"
    WORKER_DRAINING = "worker_draining"
    WORKER_KILLING = "worker_killing"
    WORKER_STOPPED = "worker_stopped"
    WORKER_CRASHED = "worker_crashed"
    TASK_CLAIMED = "task_claimed"
    TASK_STARTED = "task_started"
    TASK_ENDED = "task_ended"
    TASK_SUCCESS = "task_success"
    TASKS_SUCCEEDED = "tasks_succeeded"
    TASK_FAILED = "task_failed"
    TASK_RETRY = "task_retry"
    TASK_REJECTED = "task_rejected"
    TASK_INVALID = "task_invalid"
    TASK_CANCELLED = "task_cancelled"
    TASK_INFRA_ERROR = "task_infra_error"
    TASK_RELEASED = "task_released"
    TASK_WARNING = "task_warning"
    CANCEL_REQUESTED = "cancel_requested"
    LEASE_LOST = "lease_lost"
    LEASE_NOT_RENEWED = "lease_not_renewed"
    LEASES_UNKNOWN = "leases_unknown"
    RESULT_REFUSED = "result_refused"
    RESULTS_LOST = "results_lost"
    TASKS_RECLAIMED = "tasks_reclaimed"
    BEAT_STARTED = "beat_started"
    BEAT_STOPPED = "beat_stopped"
    SCHEDULE_FIRED = "schedule_fired"
    SCHEDULE_SKIPPED = "schedule_skipped"
    SCHEDULE_UNREADABLE = "schedule_unreadable"
    LISTEN_VERIFIED = "listen_verified"
    LISTENER_DOWN = "listener_down"
    LISTEN_FAILED = "listen_failed"
    DATABASE_AWAY = "database_away"
    DATABASE_BACK = "database_back"
    DATABASE_REFUSED = "database_refused"
    CONTRACT_REFUSED = "contract_refused"
    NOTIFY_FAILED = "notify_failed"
    EXECUTOR_WARNING = "executor_warning"
    CODE_RELOADED = "code_reloaded"
    TASK_OUTPUT = "task_output"
    CONFIG_WARNING = "config_warning"
    HTTP_STARTED = "http_started"
    HTTP_UNPROTECTED = "http_unprotected"
    MEMORY = "memory"
    # At level debug: what metrics and probes are made of.
    CLAIM_LOOP = "claim_loop"
    STOP_ASKED = "stop_asked"
    TASKS_CLAIMED = "tasks_claimed"
    DATABASE_CALLED = "database_called"
    NOTIFIED = "notified"
    LISTEN_ROUND_TRIP = "listen_round_trip"
    LIBRARY_MESSAGE = "library_message"
    LOG_DROPPED = "log_dropped"


Tap = Callable[[Event, int, Mapping[str, object]], None]
"""Hears every event as it happens, debug ones too: event, logging level, fields. Must be quick and must not raise."""


class Log:
    """Writes events under one logger, with the same fields (worker id and so on) on every line.

    What else in the process wants to know what happens (metrics, /events, probes) taps the log.
    """

    def __init__(
        self, logger: logging.Logger, fields: Mapping[str, object] | None = None, taps: tuple[Tap, ...] = ()
    ) -> None:
        self._logger = logger
        self._fields = dict(fields or {})
        self._taps = taps

    def bind(self, **fields: object) -> Log:
        """Give a log that adds these fields to every line."""
        return Log(self._logger, {**self._fields, **fields}, self._taps)

    def tapped(self, *taps: Tap) -> Log:
        """Give a log that these taps hear as well."""
        return Log(self._logger, self._fields, (*self._taps, *taps))

    def is_enabled_for(self, level: int) -> bool:
        """Whether anybody hears events of this level: ask before making many."""
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
            extra = {"event": event.value, "fields": {**self._fields, **fields}}
            self._logger.log(level, event.value, extra=extra)
