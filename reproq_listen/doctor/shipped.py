"""The objects that this version expects in a database, read from its own SQL files."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct

from reproq_listen.db.migrations import database_folder

TABLES = (
    *("task_runs", "workflow_runs", "rate_limits", "periodic_tasks", "periodic_occurrences"),
    *("reproq_queue_controls", "reproq_workers", "reproq_audit_log", "reproq_unique_keys", "reproq_steps"),
)
_FUNCTION = re.compile(r"^create or replace function (\w+)(.*?)\nas \$\$(.*?)\$\$", re.DOTALL | re.MULTILINE)
_INDEX = re.compile(r"^create (?P<unique>unique )?index (?P<name>\w+) on (?P<rest>[^;]+);", re.MULTILINE)
_INCLUDED = re.compile(r"^\\ir ((?:functions|triggers|views)/(?:\w+/)*(\w+)\.sql)$", re.MULTILINE)
_GRANT = re.compile(r"^grant (execute on function|select on)\s+([\w,\s]+?)\s+to\s+([\w,\s]+?);", re.MULTILINE)


class ShippedFunction(Struct, frozen=True):
    """A function: its body between the dollar quotes, and whether it sets the owner's rights and a search path."""

    body: str
    is_definer: bool
    has_path: bool


class ShippedIndex(Struct, frozen=True):
    """An index as in `create index`."""

    is_unique: bool
    table: str
    columns: str
    """From the opening parenthesis on, with the condition."""


class Rights(Struct, frozen=True):
    """The functions that one group may execute and the views it may read."""

    functions: frozenset[str]
    views: frozenset[str]


def functions() -> dict[str, ShippedFunction]:
    """All functions by name."""
    found = {}
    for path in sorted((_folder() / "functions").rglob("*.sql")):
        match = _FUNCTION.search(path.read_text())
        assert match is not None, f"{path} is no function"
        found[match[1]] = ShippedFunction(
            match[3], "security definer" in match[2], "set search_path from current" in match[2]
        )
    return found


def indexes() -> dict[str, ShippedIndex]:
    """All indexes that the files of tables create, by name."""
    texts = (path.read_text() for path in sorted((_folder() / "tables").glob("*.sql")))
    return {
        match["name"]: ShippedIndex(match["unique"] is not None, *match["rest"].split(maxsplit=1))
        for text in texts
        for match in _INDEX.finditer(text)
    }


def triggers() -> set[str]:
    return {path.stem for path in (_folder() / "triggers").glob("*.sql")}


def views() -> set[str]:
    return {path.stem for path in (_folder() / "views").glob("*.sql")}


def files(names: Collection[str]) -> list[Path]:
    """The files that create these functions, triggers and views, in order of installation."""
    included = _INCLUDED.findall((_folder() / "install.sql").read_text())
    return [_folder() / path for path, name in included if name in names]


def rights() -> dict[str, Rights]:
    """The rights of each group in sql/roles.sql, without the column rights of reproq_django."""
    functions: dict[str, set[str]] = {}
    views: dict[str, set[str]] = {}
    for kind, names, roles in _GRANT.findall((_folder() / "roles.sql").read_text()):
        for role in _words(roles):
            functions.setdefault(role, set())
            views.setdefault(role, set())
            (functions if kind.startswith("execute") else views)[role] |= _words(names)
    return {role: Rights(frozenset(names), frozenset(views[role])) for role, names in functions.items()}


def _folder() -> Path:
    return database_folder() / "sql"


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
