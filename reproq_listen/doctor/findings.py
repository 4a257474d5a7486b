"""What a check says."""

from __future__ import annotations

import enum

from msgspec import Struct


class Level(enum.StrEnum):
    """error: something does not work or a promise does not hold. warning: it works, and may not for long."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(Struct, frozen=True):
    """What was found, why it matters, and a command or statement that cures it; without the last two all is well."""

    check: str
    level: Level
    what: str
    why: str = ""
    cure: str = ""


def ok(check: str, what: str) -> Finding:
    return Finding(check, Level.OK, what)


def warning(check: str, what: str, why: str, cure: str) -> Finding:
    return Finding(check, Level.WARNING, what, why, cure)


def error(check: str, what: str, why: str, cure: str) -> Finding:
    return Finding(check, Level.ERROR, what, why, cure)
