"""`reproq-listen migrate`: the deploy step that brings a schema up to date."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import Output
from reproq_listen.config import settings as config
from reproq_listen.db.creators import WHY, find_creators
from reproq_listen.db.migrations import StepReport, migrate
from reproq_listen.errors import ExitCode

USAGE = """
Bring a database's reproq schema up to date, in yoyo's lock. Safe to run again, and on tables that Reproq
Django has made: what is missing is added, nothing is lost.

Usage:
  {program} migrate [options]

Options:
  --dsn DSN         The database (or DATABASE_URL). The role must own the schema.
  --schema NAME     Install into this schema; it is made when missing. Without it: the first of the search path.
  --dry-run         Say what would be done, and do nothing.
  --output FORMAT   text or json, one line a step (text).
  -h --help         Show this.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Apply what is missing and print each step as it ends."""
    sources = config.read_sources(flags, os.environ)
    dsn = config.required_dsn(sources)
    output = Output(flags["--output"])
    found = sources.trace(config.DSN)
    setting = found.name if found is not None else "--dsn"

    def show(step: StepReport) -> None:
        output.said(msgspec.to_builtins(step), f"{step.outcome:<8} {step.step}")

    steps = migrate(
        dsn,
        schema=sources.find(config.SCHEMA),
        dry_run=sources.is_on("--dry-run"),
        report=show,
        setting=setting,
    )
    for creator in find_creators(dsn, sources.find(config.SCHEMA), setting):
        output.said(
            {"warning": f"{creator.role} may make objects in the schema", "why": WHY, "remedy": creator.remedy},
            f"warning  {creator.remedy}  -- {creator.role} may make objects in the schema: {WHY}",
        )
    changed = sum(step.outcome in ("applied", "pending") for step in steps)
    would = "would be applied" if sources.is_on("--dry-run") else "applied"
    output.remark(f"{changed} of {len(steps)} steps {would}")
    return ExitCode.OK
