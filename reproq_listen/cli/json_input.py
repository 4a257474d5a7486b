"""JSON in flags and in files of tasks. It reaches the database as it was written, with all digits of its numbers."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from reproq_listen.config import parsers
from reproq_listen.errors import SettingError

_MAX_BYTES = 64 << 20
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def array(text: str) -> str:
    """JSON text of an array. Raises ValueError."""
    return _checked(text, list, 'an array such as [1, "two"]')


def mapping(text: str) -> str:
    """JSON text of an object. Raises ValueError."""
    return _checked(text, dict, 'an object such as {"name": 1}')


def whole(path: str) -> str:
    """JSON text of the array of tasks in a file (`-`: standard input): an array, or an object a line.

    Raises SettingError.
    """
    with _opened(path) as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise SettingError(f"--file {path}: more than {_MAX_BYTES >> 20} MiB; split the file")
    if text.lstrip().startswith("["):
        try:
            return array(text)
        except ValueError as error:
            raise SettingError(f"--file {path}: {error}") from None
    return joined([line for _, line in _objects(text.splitlines(keepends=True), path)])


def batches(path: str, size: int) -> Iterator[tuple[list[int], str]]:
    """The objects of a file of lines, `size` at a time: their line numbers, and the JSON array of them.

    Empty lines are skipped. Raises SettingError that names the line.
    """
    with _opened(path) as file:
        numbers: list[int] = []
        lines: list[str] = []
        for number, line in _objects(file, path):
            numbers.append(number)
            lines.append(line)
            if len(lines) == size:
                yield numbers, joined(lines)
                numbers, lines = [], []
        if lines:
            yield numbers, joined(lines)


def joined(texts: list[str]) -> str:
    """JSON text of the array of these JSON texts."""
    return f"[{','.join(texts)}]"


def _objects(lines: Iterator[str] | list[str] | IO[str], path: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, mapping(line.strip())
            except ValueError as error:
                raise SettingError(f"--file {path}: line {number} {error}") from None


@contextmanager
def _opened(path: str) -> Iterator[IO[str]]:
    try:
        if path == "-":
            if sys.stdin is None:
                raise SettingError("--file -: there is no standard input")
            yield sys.stdin
            return
        with Path(path).open(encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise SettingError(f"--file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingError(f"--file {path}: not UTF-8 text: save the file as UTF-8") from None


def _checked(text: str, kind: type, example: str) -> str:
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError(f"needs JSON, {example}, not {parsers.shown(text)}") from None
    if not isinstance(found, kind):
        raise ValueError(f"needs {example}, not {parsers.shown(text)}")
    _check_characters(text, found)
    return text


def _check_characters(text: str, found: object) -> None:
    """Refuse what is JSON and cannot be stored. Raises ValueError."""
    if _NUL.search(text):
        raise ValueError("holds \\u0000, which the database cannot store: leave it out")
    try:
        # Only escapes can spell half a surrogate pair; encoding the parsed value again finds them.
        (json.dumps(found, ensure_ascii=False) if "\\u" in text else text).encode()
    except UnicodeEncodeError:
        raise ValueError(
            "holds half of a surrogate pair or is not UTF-8, which cannot be stored: leave it out"
        ) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
