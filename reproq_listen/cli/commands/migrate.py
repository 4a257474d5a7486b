"""`reproq-listen migrate`: the deploy step that brings a schema up to date."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.definitions import DSN
from reproq_listen.config.settings import OperatorSettings, read, read_sources
from reproq_listen.db.creators import WHY, find_creators
from reproq_listen.db.migrations import StepReport, migrate
from reproq_listen.errors import ExitCode

USAGE = """
Safe to run again, and on tables that Reproq Django has created: adds what is missing and keeps all
rows. Two at once wait for each other (yoyo's lock). The role must own the schema.

Usage:
  {program} migrate [options]

Options:
  --dry-run  Show the steps that would be applied; change nothing.
{operators}

With --schema, migrate installs into that schema and creates it if it is missing. Without it, the
first schema of the search path is used. Warns of each other role that may create objects there:
it could run code as the owner.

Exit codes: 0 up to date; 1 a step failed; others as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Apply what is missing and print each step as it ends."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    settings = read(OperatorSettings, sources)
    output = CommandOutput(flags)
    dry_run = sources.is_on("--dry-run")

    def show(step: StepReport) -> None:
        output.result(msgspec.to_builtins(step), f"{step.outcome:<8} {step.step}")

    steps = migrate(settings.dsn, schema=settings.schema, dry_run=dry_run, report=show, setting=sources.source_of(DSN))
    for creator in find_creators(settings.dsn, settings.schema, sources.source_of(DSN)):
        problem = f"{creator.role} may create objects in the schema"
        output.result(
            {"warning": problem, "why": WHY, "remedy": creator.remedy},
            f"warning  {creator.remedy}  -- {problem}: {WHY}",
        )
    changed = sum(step.outcome in ("applied", "pending") for step in steps)
    output.remark(f"{changed} of {len(steps)} steps {'would be applied' if dry_run else 'applied'}")
    return ExitCode.OK
