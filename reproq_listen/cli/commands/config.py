"""`reproq-listen config`: settings and their sources, the reference, and example files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from reproq_listen.cli.output import CommandOutput
from reproq_listen.cli.reference import example_toml, example_yaml, reference
from reproq_listen.config.definitions import SHOWN
from reproq_listen.config.settings import NoDatabaseError, read_sources, warnings, worker_settings_of
from reproq_listen.config.sources import Setting, Sources, parsed
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
Secrets are never shown.

Usage:
  {program} config (--explain | --reference | --example FORMAT) [options]

Options:
  --explain         Show each setting that has a variable or a key: its value and where it came from.
  --reference       Print all flags, variables, keys, metrics and events, as two pages of {program} docs do.
  --example FORMAT  Print an example file with all defaults: yaml or toml.
{config}

With --explain --output json: one object with file, warnings, problems and settings.

Exit codes: 0 done, 2 a setting has a wrong value (--explain shows all of them).
"""

HIDDEN = "[REDACTED]"


class Explained(Struct, frozen=True):
    """One setting as it stands."""

    setting: str
    value: str | None
    source: str
    problem: str | None = None


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Explain the settings, or print the reference or an example file. Raises SettingError."""
    if flags["--reference"]:
        print(reference(), end="")
        return ExitCode.OK
    if flags["--example"] is not None:
        return _example(str(flags["--example"]))
    output = CommandOutput(flags)
    sources = read_sources(flags, os.environ, tolerant=True)
    problems = [] if program == "reproq" or sources.file is None else list(sources.file.unknown)
    rows = list(explain(sources))
    wrong = [row.problem for row in rows if row.problem]
    problems += dict.fromkeys(wrong or _problem_together(sources, program))
    _print(rows, sources, problems, output)
    return ExitCode.USAGE if problems else ExitCode.OK


def _print(rows: list[Explained], sources: Sources, problems: list[str], output: CommandOutput) -> None:
    warned = [] if problems else warnings(sources)
    file = sources.file.path if sources.file is not None else None
    settings = [asdict(row) for row in rows]
    if output.is_json:
        output.record({"file": file, "warnings": warned, "problems": problems, "settings": settings})
        return
    print(f"configuration file: {file or 'none'}")
    output.rows(settings, ("setting", "value", "source"))
    for warning in warned:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"problem: {problem}")


def explain(sources: Sources) -> Iterable[Explained]:
    """Each setting that a variable or a file can give: its value as text and where it came from."""
    for setting in SHOWN:
        if setting.variable or setting.keys:
            yield _explained(setting, sources)


def _explained(setting: Setting[Any], sources: Sources) -> Explained:
    name = setting.keys[0] if setting.keys else setting.name
    try:
        found = sources.trace(setting)
    except SettingError as error:
        return Explained(name, None, "", str(error))
    if found is None:
        return Explained(name, None, "unset")
    try:
        parsed(setting, found)
        problem = None
    except SettingError as error:
        problem = str(error)
    source = found.kind if found.kind == found.name else f"{found.kind} {found.name}"
    return Explained(name, HIDDEN if setting.is_secret else found.text, source, problem)


def _problem_together(sources: Sources, program: str) -> list[str]:
    """Why a worker would refuse to start, except for a missing DSN."""
    try:
        worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    except NoDatabaseError:
        return []
    except SettingError as error:
        return [str(error)]
    return []


def _example(kind: str) -> ExitCode:
    if kind not in ("yaml", "toml"):
        raise SettingError(f"--example must be yaml or toml, not {kind!r}")
    print(example_yaml() if kind == "yaml" else example_toml(), end="")
    return ExitCode.OK
