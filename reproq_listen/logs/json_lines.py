"""Log lines as JSON on a descriptor: `ts` (UTC), `level`, `event`, `worker_id`, then the fields of the event."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

from reproq_listen.logs.event_log import Event, Log
from reproq_listen.logs.line_writer import LineWriter
from reproq_listen.logs.redaction import Redactor

_FLUSH_SECONDS = 1.0

_PROCESS_FIELDS = ("worker_id", "beat_id", "process_role")
"""Fields that identify the process that writes the log."""


class _Formatter(JsonFormatter):
    """One JSON object a record. The message of an event of ours is a dictionary, that of a library is text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # `ts` has a default only to stand first.
        super().__init__(
            ["levelname"],
            defaults={"ts": None},
            timestamp="ts",
            rename_fields={"levelname": "level", "exc_info": "exception"},
        )
        self._redactor = Redactor(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record if isinstance(record.msg, dict) else _library_event(record))

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        log_data["ts"] = log_data["ts"].isoformat(timespec="milliseconds")
        log_data["level"] = log_data["level"].lower()
        return self._redactor.clean(log_data)


def _library_event(record: logging.LogRecord) -> logging.LogRecord:
    """The plain message of a library as an event of ours, without its own attributes."""
    message = {"event": Event.LIBRARY_MESSAGE.value, "logger": record.name, "message": record.getMessage()}
    kept = {"created": record.created, "levelname": record.levelname, "exc_info": record.exc_info}
    return logging.makeLogRecord({"msg": message, **kept})


class _Handler(logging.Handler):
    """Writes to a descriptor."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._writer = LineWriter(fd, self._line_for_dropped)
        self._dropped: logging.LogRecord | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if not self._writer.write(self.format(record)):
            self._dropped = record

    def flush(self) -> None:
        """Called when the interpreter ends."""
        self._writer.flush(_FLUSH_SECONDS)

    def _line_for_dropped(self, count: int) -> str:
        message = self._dropped.msg if self._dropped is not None else None
        fields = message if isinstance(message, dict) else {}
        process = {name: fields[name] for name in _PROCESS_FIELDS if name in fields}
        line = {"event": Event.LOG_DROPPED.value, **process, "count": count}
        return self.format(logging.makeLogRecord({"levelname": "WARNING", "msg": line}))


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
