"""`reproq-listen config`: what the settings are, where each came from, and which there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from reproq_listen.cli.output import Output
from reproq_listen.cli.reference import example_toml, example_yaml, reference
from reproq_listen.config import definitions as settings_table
from reproq_listen.config import settings as config
from reproq_listen.config.sources import Setting, Sources, parsed
from reproq_listen.errors import ExitCode, SettingError

USAGE = """
Show the settings of worker and beat, and where each came from. Secrets are never shown.

Usage:
  {program} config (--explain | --reference | --example FORMAT) [--config PATH] [--output FORMAT]

Options:
  --explain         Show each setting as the environment and the file make it, and its source.
  --reference       Print all flags, variables, keys, metrics and events, as two pages of {program} docs do.
  --example FORMAT  Print an example file with all defaults: yaml or toml.
  --config PATH     Configuration file (REPROQ_CONFIG; else the first of reproq.yaml, reproq.yml, reproq.toml and the
                    same with a dot before, in the working directory).
  --output FORMAT   With --explain: text, or json: one object with file, warnings, problems and settings (text).
  -h --help         Show this.

Exit codes: 0 fine, 2 a setting cannot be used (--explain shows all of these).
"""

HIDDEN = "[REDACTED]"


class Explained(Struct, frozen=True):
    """One setting as it stands."""

    setting: str
    value: str | None
    source: str
    problem: str | None = None


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Print what was asked for. Raises SettingError."""
    if flags["--reference"]:
        print(reference(), end="")
        return ExitCode.OK
    if flags["--example"] is not None:
        return _example(str(flags["--example"]))
    output = Output(flags["--output"])
    problems: list[str] = []
    sources = config.read_sources(flags, os.environ, problems)
    rows = list(explain(sources))
    wrong = [row.problem for row in rows if row.problem]
    problems += dict.fromkeys(wrong or _problem_together(sources, program))
    _print(rows, sources, problems, output)
    return ExitCode.USAGE if problems else ExitCode.OK


def _print(rows: list[Explained], sources: Sources, problems: list[str], output: Output) -> None:
    warnings = [] if problems else config.warnings(sources)
    file = sources.file.path if sources.file is not None else None
    settings = [asdict(row) for row in rows]
    if output.is_json:
        output.record({"file": file, "warnings": warnings, "problems": problems, "settings": settings})
        return
    print(f"configuration file: {file or 'none'}")
    output.rows(settings, ("setting", "value", "source"))
    for warning in warnings:
        print(f"warning: {warning}")
    for problem in problems:
        print(f"problem: {problem}")


def explain(sources: Sources) -> Iterable[Explained]:
    """Each setting of the table, its value as text and where it came from."""
    for setting in settings_table.WORKER + settings_table.BEAT + settings_table.METRICS:
        yield _explained(setting, sources)


def _explained(setting: Setting[Any], sources: Sources) -> Explained:
    name = setting.keys[0] if setting.keys else setting.flag or str(setting.env)
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
    return Explained(name, HIDDEN if setting.secret else found.text, source, problem)


def _problem_together(sources: Sources, program: str) -> list[str]:
    """What a worker would refuse to start with, besides a missing DSN."""
    try:
        config.worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    except SettingError as error:
        return [] if "no database given" in str(error) else [str(error)]
    return []


def _example(kind: str) -> ExitCode:
    if kind not in ("yaml", "toml"):
        raise SettingError(f"--example must be yaml or toml, not {kind!r}")
    print(example_yaml() if kind == "yaml" else example_toml(), end="")
    return ExitCode.OK
