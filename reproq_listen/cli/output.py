"""How commands print: tables for people, one JSON object per line for programs."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from reproq_listen.config.definitions import OUTPUT
from reproq_listen.config.sources import Sources

_MAX_CELL = 100


class CommandOutput:
    """Prints what a command found. Text that came from tasks is cut and its control characters are shown as escapes."""

    def __init__(self, flags: Mapping[str, object]) -> None:
        """`flags`: of the command, with --output. Raises SettingError."""
        self.is_json = Sources(flags, {}).get(OUTPUT) == "json"
        if self.is_json and isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # as JSON is, whatever the locale

    def rows(
        self, rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None, *, nothing: str = "nothing"
    ) -> None:
        """A table of these columns (all); in JSON one object per row with all fields. `nothing`: text for no row."""
        found = list(rows)
        if self.is_json:
            for row in found:
                self._line(row)
        elif not found:
            print(nothing)
        else:
            print(_table(found, columns or list(found[0])))

    def record(self, record: Mapping[str, object]) -> None:
        """One record: a line for each field that is not empty; in JSON one object."""
        if self.is_json:
            self._line(record)
            return
        width = max(map(len, record), default=0)
        for name, value in record.items():
            if value not in (None, "", [], {}):
                print(f"{name:<{width}}  {shown(value, max_length=None)}")

    def result(self, record: Mapping[str, object], text: str) -> None:
        """What was done: a sentence; in JSON one object."""
        if self.is_json:
            self._line(record)
        else:
            print(text, flush=True)

    def remark(self, text: str) -> None:
        """A line for people; nothing in JSON."""
        if not self.is_json:
            print(text)

    def progress(self, text: str) -> None:
        """Progress of a long command, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def _line(self, record: Mapping[str, object]) -> None:
        print(msgspec.json.encode({name: _plain(value) for name, value in record.items()}).decode(), flush=True)


def shown(value: object, max_length: int | None = _MAX_CELL) -> str:
    """A value in one line of text."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case timedelta():
            return _duration(value)
        case list() if all(isinstance(item, int | str) for item in value):
            text = ", ".join(map(str, value))
        case list() | dict():
            text = msgspec.json.encode(value).decode()
        case _:
            text = str(value)
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if max_length is None or len(text) <= max_length else text[: max_length - 3] + "..."


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    if seconds < 0:
        return "-" + _duration(-value)
    for unit, size, below in (("d", 86400, "h"), ("h", 3600, "m"), ("m", 60, "s")):
        if seconds >= size:
            rest = int(seconds % size // {"h": 3600, "m": 60, "s": 1}[below])
            return f"{int(seconds // size)}{unit}{rest}{below}"
    return f"{seconds:.3g}s"


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    cells = [[shown(row[column]) for column in columns] for row in rows]
    numbers = [all(isinstance(row[column], int | float | timedelta | None) for row in rows) for column in columns]
    widths = [max(len(line[at]) for line in [list(columns), *cells]) for at in range(len(columns))]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ).rstrip()
        for line in [list(columns), *cells]
    ]
    return "\n".join(lines)


def _plain(value: object) -> object:
    """A value as JSON has it: durations are seconds; values of other types are text."""
    match value:
        case timedelta():
            return round(value.total_seconds(), 6)
        case Mapping():
            return {str(name): _plain(item) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str() | datetime():
            return value
        case _:
            return str(value)
