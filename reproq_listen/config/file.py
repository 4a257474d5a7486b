"""The configuration file, YAML or TOML, as flat texts: `worker.concurrency` -> `10`, with the line each stands on.

Every value is kept as the text that the user wrote and is parsed later, like a flag's: YAML's guesses (`on`, `1:30`,
`0o17`) have no effect. Aliases, tags and deep nesting are refused before anything is built from them.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from reproq_listen.errors import SettingError

NAMES = ("reproq.yaml", "reproq.yml", "reproq.toml", ".reproq.yaml", ".reproq.yml", ".reproq.toml")
"""Looked for in the working directory, in this order."""
MAX_BYTES = 64 << 10
_MAX_DEPTH = 3  # the file, a section, a list
_NULL = "tag:yaml.org,2002:null"
_SHAPE = "give keys at the top and under worker:, beat: and metrics:, each with a text, a number or a list"


@dataclass(frozen=True)
class Value:
    """What the file says under one key."""

    text: str
    line: int
    """0: unknown."""


@dataclass(frozen=True)
class ConfigFile:
    """A file that was read, and whether its mode exposes it."""

    path: str
    values: Mapping[str, Value]
    is_readable_by_all: bool = field(default=False)
    unknown: tuple[str, ...] = ()
    """The error text of each key that is not known. Such keys are left out."""

    def place(self, line: int) -> str:
        return _place(self.path, line)


class _BadFileError(Exception):
    """What is wrong, on which line (0: no line)."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def _place(path: str, line: int) -> str:
    return f"{path}:{line}" if line else path


def find() -> tuple[str, str] | None:
    """Give the file in the working directory and how it was chosen, or None."""
    found = next((name for name in NAMES if os.path.lexists(name)), None)
    return None if found is None else (found, "found in the working directory")


def read(path: str, named_by: str, known: Collection[str], *, tolerant: bool = False) -> ConfigFile:
    """Read a file whose keys must all be `known` (`section.key` or `key`), unless `tolerant`.

    Raises SettingError with file, line, key and remedy.
    """
    data, mode = _bytes(path, named_by)
    try:
        text = _text(data)
        values = dict(_toml(text) if path.endswith(".toml") else _yaml(text))
    except _BadFileError as error:
        raise SettingError(f"{_place(path, error.line)}: {error}") from None
    strange = [key for key in values if key not in known]
    unknown = tuple(f"{_place(path, values[key].line)}: {_unknown(key, known)}" for key in strange)
    if unknown and not tolerant:
        raise SettingError(unknown[0])
    values = {key: value for key, value in values.items() if key in known}
    return ConfigFile(path, values, is_readable_by_all=bool(mode & stat.S_IROTH), unknown=unknown)


def _bytes(path: str, named_by: str) -> tuple[bytes, int]:
    try:
        data, mode = read_regular(path, MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingError(f"{path!a} ({named_by}) cannot be read: {why}") from None
    if len(data) > MAX_BYTES:
        raise SettingError(f"{path!a} ({named_by}) has more than {MAX_BYTES} bytes: that is no configuration file")
    return data, mode


def read_regular(path: str, max_bytes: int) -> tuple[bytes, int]:
    """Give the first bytes of a regular file, and its mode. Raises OSError or ValueError."""
    # Non-blocking: opening a FIFO without a writer must not hang the program.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes), mode
    finally:
        os.close(descriptor)


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _BadFileError(line, "not UTF-8 text: save the file as UTF-8") from None
    return text.replace("\r\n", "\n")


def _yaml(text: str) -> Iterator[tuple[str, Value]]:
    try:
        _check_events(text)
        document = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _BadFileError(mark.line + 1 if mark else 0, _yaml_problem(error)) from None
    except yaml.YAMLError as error:  # a character that no YAML may hold
        raise _BadFileError(0, f"not YAML: {str(error).splitlines()[0]}") from None
    if document is None:
        return
    if not isinstance(document, yaml.MappingNode):
        raise _BadFileError(_line(document), _SHAPE)
    for key, node in _pairs(document, ""):
        if isinstance(node, yaml.MappingNode):
            yield from (
                (name, _yaml_value(name, value)) for name, value in _pairs(node, f"{key}.") if not _is_null(value)
            )
        elif not _is_null(node):
            yield key, _yaml_value(key, node)


def _check_events(text: str) -> None:
    """Refuse aliases, tags and deep nesting: they may cost much to build and have no use here."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = _line(event)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _BadFileError(line, "anchors and aliases (& and *) are not used here: write the value out")
        if getattr(event, "tag", None) not in (None, "!"):
            raise _BadFileError(line, "tags (!) are not used here: write the plain value")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise _BadFileError(line, f"nested too deeply: {_SHAPE}")


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "cannot be read"
    remedy = "; indent with spaces, not tabs" if "\\t" in problem else ""
    if "alias" in (error.context or ""):
        remedy = '; write a * in quotes: "*"'
    return f"not YAML: {problem}{remedy}"


def _line(node: yaml.Node | yaml.Event) -> int:
    mark = node.start_mark
    return 0 if mark is None else int(mark.line) + 1


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL


def _pairs(mapping: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, yaml.Node]]:
    seen: set[str] = set()
    for key, value in mapping.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _BadFileError(_line(key), f"a key must be a plain word: {_SHAPE}")
        name = prefix + str(key.value)
        if name in seen:
            raise _BadFileError(_line(key), f"{_shown(name)} is given twice")
        seen.add(name)
        yield name, value


def _yaml_value(key: str, node: yaml.Node) -> Value:
    if isinstance(node, yaml.ScalarNode):
        return Value(str(node.value), _line(node))
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return Value(_joined(key, [str(item.value) for item in node.value], _line(node)), _line(node))
    raise _BadFileError(_line(node), f"{_shown(key)} needs a text, a number or a list of them")


def _toml(text: str) -> Iterator[tuple[str, Value]]:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        raise _BadFileError(int(at[1]) if at else 0, f"not TOML: {error}") from None
    except RecursionError:
        raise _BadFileError(0, f"nested too deeply: {_SHAPE}") from None
    lines = _toml_lines(text)
    for key, value in tree.items():
        items = {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
        for name, item in items.items():
            line = lines.get(name, 0)
            yield name, Value(_toml_text(name, item, line), line)


def _toml_lines(text: str) -> dict[str, int]:
    """The line of each key that is written as `key = value`, also below a `[section]`."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w-]+)\s*\]", line):
            section = f"{header[1]}."
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            lines.setdefault(section + key[1], number)
    return lines


def _toml_text(key: str, value: object, line: int) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case list() if all(isinstance(item, str | int | float) for item in value):
            return _joined(key, [str(item) for item in value], line)
        case _:
            raise _BadFileError(line, f"{_shown(key)} needs a text, a number or a list of them")


def _joined(key: str, items: list[str], line: int) -> str:
    if any("," in item for item in items):
        raise _BadFileError(line, f"{_shown(key)}: an element of the list has a comma in it")
    return ",".join(items)


def _unknown(key: str, known: Collection[str]) -> str:
    within = min((name for name in known if name.startswith(f"{key}.")), default=None)
    if within is not None:
        return f"{_shown(key)} is a section: give its keys, such as {within}, each a value of its own"
    near = difflib.get_close_matches(key, known, n=1)
    if not near:
        # In the wrong section, perhaps.
        near = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]][:1]
    hint = f"did you mean {near[0]}?" if near else "reproq-listen config --reference lists the keys"
    return f"there is no key {_shown(key)}; {hint}"


def _shown(key: str) -> str:
    return key if key.isprintable() and len(key) <= 80 else repr(key[:80])
