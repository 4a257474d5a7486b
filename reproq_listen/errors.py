"""The errors a user sees, and the exit codes they end in.

Every message says what is wrong, names the setting or object, and names the remedy. No message contains a password.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """Exit codes are part of the interface; `reproq-listen --help` lists them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONTRACT = 3
    UNREACHABLE = 4
    UNCHANGED = 5
    MISSING = 6
    FORKSERVER = 7


class ReproqError(Exception):
    """An error that the user can fix. Its text is shown as it is, without a traceback."""

    exit_code = ExitCode.FAILURE


class SettingError(ReproqError):
    """A flag, an environment variable or a DSN has a value that cannot be used."""

    exit_code = ExitCode.USAGE


class ContractError(ReproqError):
    """The database lacks our schema, or its schema serves another interface number."""

    exit_code = ExitCode.CONTRACT


class UnreachableError(ReproqError):
    """The database does not answer, or refuses us (wrong password, no such database)."""

    exit_code = ExitCode.UNREACHABLE


class ForkserverError(ReproqError):
    """The process that children are forked from cannot import the application; the text has its output."""

    exit_code = ExitCode.FORKSERVER


class UnshareableImportsError(ForkserverError):
    """The imports of the application have started a thread or opened a connection, which children cannot share."""


class InvalidTaskError(ReproqError, TypeError):
    """A function cannot be a task, or a task cannot have these options."""


class InvalidArgumentsError(ReproqError, TypeError):
    """A task cannot be enqueued with these arguments: they do not fit its signature, or cannot be encoded."""


class TaskFailedError(ReproqError):
    """A task whose result was asked for has failed."""


class TaskUnfinishedError(ReproqError, TimeoutError):
    """A task has not ended: within the time that was given, or when its return value was read."""


class NoSuchTaskError(ReproqError, LookupError):
    """There is no task with this id: it was never committed, or was pruned."""
