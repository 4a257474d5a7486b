"""Log lines as JSON on a descriptor: `ts` (UTC), `level`, `event`, `worker_id`, then the fields of the event."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

from reproq_listen.logs.event_log import Event, Log
from reproq_listen.logs.line_writer import LineWriter
from reproq_listen.logs.redaction import Redactor

_FLUSH_SECONDS = 1.0


_OF_PROCESS = ("worker_id", "beat_id", "process_role")
"""Fields that say whose log it is."""


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
