"""The result of a check."""

from __future__ import annotations

import enum

from msgspec import Struct


class Level(enum.StrEnum):
    """error: something does not work, or a promise does not hold. warning: it works, but perhaps not for long."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(Struct, frozen=True):
    """What was found, why it matters, and the command or statement that mends it. Only `what` when all is well."""

    check: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, why: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, what, why, remedy)


def error(check: str, what: str, why: str, remedy: str) -> Finding:
    return Finding(check, Level.ERROR, what, why, remedy)
