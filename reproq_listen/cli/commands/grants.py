"""`reproq-listen grants`: creates the roles of sql/roles.sql and sets their rights."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.definitions import DSN
from reproq_listen.config.settings import OperatorSettings, read, read_sources
from reproq_listen.db.creators import WHY, find_creators
from reproq_listen.db.roles import grant
from reproq_listen.errors import ExitCode

USAGE = """
Creates the roles reproq_worker, reproq_producer, reproq_operator and reproq_observer if they are
missing, and sets their rights on the reproq schema to exactly those of this version
(sql/roles.sql). Run it as the owner of the schema after each migrate; creating roles needs the
right to do so. The roles cannot log in. Make your login roles members of them, for example:
  create role app login password '...'; grant reproq_worker to app;

Usage:
  {program} grants [options]

Options:
  --django   Also create reproq_django, which reads and writes the tables as Reproq Django does.
  --dry-run  Show what would change; change nothing.
{operators}

Exit codes: 0 done, also if nothing had to change; 1 refused, or other roles than the owner may
create objects in the schema (each is listed); others as in {program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Grant, and print each change."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    settings = read(OperatorSettings, sources)
    output = CommandOutput(flags)
    dry_run = sources.is_on("--dry-run")
    changes, advice = grant(
        settings.dsn,
        schema=settings.schema,
        setting=sources.source_of(DSN),
        django=sources.is_on("--django"),
        dry_run=dry_run,
    )
    for change in changes:
        output.result(msgspec.to_builtins(change), f"{change.change:<8} {change.what}")
    for line in advice:
        output.result(msgspec.to_builtins(line), f"advice   {line.advice}  -- {line.why}")
    output.remark(f"{len(changes)} rights and roles {'would change' if dry_run else 'changed'}")
    creators = find_creators(settings.dsn, settings.schema, sources.source_of(DSN))
    for creator in creators:
        problem = f"{creator.role} may create objects in the schema"
        output.result(
            {"error": problem, "why": WHY, "remedy": creator.remedy}, f"error    {creator.remedy}  -- {problem}: {WHY}"
        )
    return ExitCode.FAILURE if creators else ExitCode.OK
