"""The log: one JSON object a line, from a closed list, without secrets."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from reproq_listen.logs.event_log import Event, Log
from reproq_listen.logs.json_lines import set_up
from reproq_listen.logs.redaction import MAX_TEXT


class Written:
    """A log that writes to memory."""

    def __init__(self, *secrets: str) -> None:
        self._stream = io.StringIO()
        self.log: Log = set_up(secrets, self._stream)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    @property
    def text(self) -> str:
        return self._stream.getvalue()


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_json_lines_have_time_level_event_and_fields() -> None:
    """Time, level, event and the bound fields stand on every line; durations are in seconds."""
    written = Written()
    written.log.bind(worker_id="w").warning(Event.TASK_RETRY, task_id=7, retry_in=timedelta(seconds=1.5))
    (line,) = written.lines()
    assert line.pop("ts").endswith("+00:00")
    assert line == {"level": "warning", "event": "task_retry", "worker_id": "w", "task_id": 7, "retry_in": 1.5}


@pytest.mark.parametrize("key", ["args", "traceback", "Authorization", "lease_token", "db_password", "API_KEY"])
def test_redactor_removes_private_keys_at_any_depth(key: str) -> None:
    """Payload-like keys and keys that hold a secret show nothing, nested or not."""
    written = Written()
    written.log.info(Event.TASK_FAILED, **{key: "private"}, more={"deep": [{key: "private"}]})
    (line,) = written.lines()
    assert line[key] == "[REDACTED]"
    assert "private" not in written.text


def test_redactor_removes_secret_values_from_any_text() -> None:
    """A password in an error text, in a key or in a library's message is taken out by its value."""
    written = Written("hunter2", "hunter2-longer")
    written.log.error(Event.DATABASE_AWAY, reason="cannot log in with hunter2-longer", **{"x hunter2": 1})
    logging.getLogger("psycopg").warning("hunter2 in %s", "a message of hunter2")
    assert "hunter2" not in written.text
    assert "-longer" not in written.text
    assert written.lines()[1]["event"] == "library_message"


def test_json_lines_escape_newlines_of_foreign_text() -> None:
    """A newline inside an error message stays inside its field."""
    written = Written()
    written.log.info(Event.TASK_FAILED, error='x\n{"event": "task_success"}\u2028\x1b[2J')
    assert len(written.text.splitlines()) == 1
    assert written.text.isascii()
    assert "\x1b" not in written.text


def test_redactor_truncates_long_text() -> None:
    """One message cannot fill the disk."""
    written = Written()
    written.log.info(Event.TASK_FAILED, error="é" * 1_000_000)
    assert len(written.lines()[0]["error"]) == MAX_TEXT + 3


def test_json_lines_include_warnings_of_python() -> None:
    """Nothing of ours writes plain text to standard error."""
    written = Written()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert written.lines()[0]["event"] == "library_message"
