"""Errors of a call to the database, by what they mean for the caller."""

from __future__ import annotations

import psycopg

_AWAY_CLASSES = ("08", "26", "28", "3D", "57P", "58")  # 26: a prepared statement is gone; a new session has it again
_BUSY_CLASSES = ("40", "53", "55", "57")
_VALUE_CLASSES = ("22", "54")
_ROW_CLASSES = ("23", "44", "P0")  # constraints, and what triggers of other people raise
_TOO_LARGE = ("53200", "53400", "57014")  # out of memory, a configured limit exceeded, statement_timeout
_OUR_CLASS = "RQ"  # raised by our own functions: detail and hint name the remedy
_READ_ONLY = "25006"
_TOO_MANY_CONNECTIONS = "53300"


class CallError(Exception):
    """A call to the database that did not succeed. The text has no traceback and no password."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class DatabaseAway(CallError):
    """The connection is gone or was given up: whether the call took effect is **unknown**."""


class CallTooSlow(DatabaseAway):
    """There was no answer in time: the server is silent, or the call takes longer than it may."""


class DatabaseBusy(CallError):
    """The call had no effect and may be repeated (lock timeout, deadlock, out of resources)."""


class CallTooLarge(DatabaseBusy):
    """The server gave the call up (statement timeout, out of memory): a smaller one may succeed."""


class ValueRefused(CallError):
    """The call had no effect: a value in it cannot be stored."""


class CallRefused(CallError):
    """The call had no effect: missing function, missing right, wrong argument. A human may have to help."""


class RowRefused(CallRefused):
    """The call had no effect: a constraint or a trigger of the database refuses one of its rows."""


def classify(error: psycopg.Error) -> CallError:
    """The error of ours that an error of the driver stands for."""
    state = error.sqlstate
    message = error.diag.message_primary or str(error) or type(error).__name__
    if state is None:
        # Without a SQLSTATE the error was found on this side of the connection.
        kind: type[CallError] = ValueRefused if isinstance(error, psycopg.DataError) else DatabaseAway
    elif state in (_READ_ONLY, _TOO_MANY_CONNECTIONS) or state.startswith(_AWAY_CLASSES):
        kind = DatabaseAway
    elif state in _TOO_LARGE:
        kind = CallTooLarge
    elif state.startswith(_BUSY_CLASSES):
        kind = DatabaseBusy
    elif state.startswith(_VALUE_CLASSES):
        kind = ValueRefused
    elif state.startswith(_ROW_CLASSES):
        kind = RowRefused
    else:
        kind = CallRefused
    if state is not None and state.startswith(_OUR_CLASS):
        message = "; ".join(filter(None, (message, error.diag.message_detail, error.diag.message_hint)))
    return kind(" ".join(message.split()), state)  # libpq's messages have several lines
