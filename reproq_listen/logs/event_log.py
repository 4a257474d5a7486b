"""JSON lines on standard error: a closed list of events, with secrets and payloads taken out.

Nothing waits for whoever reads them: see log_writer.py.

One line per event: `ts` (UTC), `level`, `event`, `worker_id`, then the fields of the event.
Text that came from a task or a database is data: it is cut, and JSON escapes its newlines.
"""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO
from uuid import UUID

from pythonjsonlogger.json import JsonFormatter

from reproq_listen.logs.line_writer import LineWriter

REDACTED = "[REDACTED]"
MAX_TEXT = 2048
_MAX_DEPTH = 6
_SHORTEST_SECRET = 4
_FLUSH_SECONDS = 1.0
_OF_PROCESS = ("worker_id", "beat_id", "process_role")
"""Fields that say whose log it is."""

_PAYLOAD_KEYS = frozenset(
    {"args", "kwargs", "payload", "payload_json", "spec_json", "return_json", "errors_json", "headers", "body"}
    | {"stdout", "stderr", "traceback", "authorization"}
)
_SECRET_PARTS = ("secret", "token", "password", "api_key")


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
    LEASE_FENCED = "lease_fenced"
    LEASES_UNKNOWN = "leases_unknown"
    RESULT_REFUSED = "result_refused"
    RESULTS_LOST = "results_lost"
    TASKS_RECLAIMED = "tasks_reclaimed"
    BEAT_STARTED = "beat_started"
    BEAT_STOPPED = "beat_stopped"
    SCHEDULE_FIRED = "schedule_fired"
    SCHEDULE_SKIPPED = "schedule_skipped"
    SCHEDULE_UNREADABLE = "schedule_unreadable"
    LISTEN_PROVEN = "listen_proven"
    LISTEN_DEAF = "listen_deaf"
    LISTEN_FAILED = "listen_failed"
    DATABASE_AWAY = "database_away"
    DATABASE_BACK = "database_back"
    DATABASE_REFUSED = "database_refused"
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

    def hears(self, level: int) -> bool:
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


class _Formatter(JsonFormatter):
    """Builds the line from an event of ours, or from a library's plain message."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("", json_ensure_ascii=True)
        self._redactor = Redactor(secrets)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line["event"] = getattr(record, "event", record.getMessage())
            line |= fields
        else:
            line |= {
                "event": Event.LIBRARY_MESSAGE.value,
                "logger": record.name,
                "message": record.getMessage(),
            }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self.serialize_log_record(self._redactor.clean(line))


class Redactor:
    """Takes out secrets: by the name of the field, and by value wherever it turns up."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Longest first, so that a secret which contains another one is taken out whole.
        # Very short ones are left: they would tear ordinary words apart.
        self._secrets = sorted({s for s in secrets if len(s) >= _SHORTEST_SECRET}, key=len, reverse=True)

    def clean(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            self.text(str(key)): REDACTED if _is_private(str(key)) else self._value(value, 1)
            for key, value in fields.items()
        }

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "..."

    def _value(self, value: object, depth: int) -> object:
        if depth > _MAX_DEPTH:
            return "..."
        match value:
            case None | bool() | int() | float():
                return value
            case timedelta():
                return round(value.total_seconds(), 6)
            case datetime():
                return value.isoformat()
            case UUID():
                return str(value)
            case Mapping():
                return {
                    self.text(str(key)): REDACTED if _is_private(str(key)) else self._value(item, depth + 1)
                    for key, item in value.items()
                }
            case list() | tuple() | set() | frozenset():
                return [self._value(item, depth + 1) for item in value]
            case _:
                return self.text(str(value))


def _is_private(key: str) -> bool:
    key = key.lower()
    return key in _PAYLOAD_KEYS or any(part in key for part in _SECRET_PARTS)


class _Handler(logging.Handler):
    """Writes to a descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._writer = LineWriter(fd, self._gap)
        self._dropped: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if not self._writer.write(self.format(record)):
            self._dropped = record

    def flush(self) -> None:
        """Called when the interpreter ends."""
        self._writer.flush(_FLUSH_SECONDS)

    def _gap(self, count: int) -> str:
        fields = {name: value for name, value in getattr(self._dropped, "fields", {}).items() if name in _OF_PROCESS}
        line = {"levelname": "WARNING", "event": Event.LOG_DROPPED.value, "fields": {**fields, "count": count}}
        return self.format(logging.makeLogRecord(line))


def set_up(secrets: Iterable[str] = (), stream: TextIO | int = 2, level: int = logging.INFO) -> Log:
    """Send our events, and the warnings of libraries, as JSON lines to a descriptor (standard error, if there is one)
    or to a stream in memory."""
    handler: logging.Handler
    if not isinstance(stream, int):
        handler = logging.StreamHandler(stream)
    else:
        handler = _Handler(stream) if sys.stderr is not None else logging.NullHandler()
    handler.setFormatter(_Formatter(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logger = logging.getLogger("reproq_listen")
    logger.setLevel(level)
    return Log(logger)
