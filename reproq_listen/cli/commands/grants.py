"""`reproq-listen grants`: who may do what, brought to what sql/roles.sql says."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import Output
from reproq_listen.config import settings as config
from reproq_listen.db.creators import WHY, find_creators
from reproq_listen.db.roles import grant
from reproq_listen.errors import ExitCode

USAGE = """
Make the roles reproq_worker, reproq_producer, reproq_operator and reproq_observer where they are missing, and bring
their rights on the reproq schema to exactly what this version lists (sql/roles.sql). Run it as the owner of the schema
after each migrate. They cannot log in: make the roles that do members of them, as in
  create role app login password '...'; grant reproq_worker to app;

Usage:
  {program} grants [options]

Options:
  --dsn DSN         The database (or DATABASE_URL). The role owns the schema, and may create roles or finds them made.
  --schema NAME     The schema that holds reproq's functions (the search path finds it).
  --django          Also make reproq_django, which reads and writes the tables as Reproq Django does.
  --dry-run         Say what would change, and change nothing.
  --output FORMAT   text or json, one line a change (text).
  -h --help         Show this.

Exit codes: 0 done, also when nothing had to change; 1 refused, or another role than the owner may make objects in
the schema (each is listed); 2 wrong flag; 3 no reproq schema; 4 no database.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Grant, and print each change."""
    sources = config.read_sources(flags, os.environ)
    dsn = config.required_dsn(sources)
    output = Output(flags["--output"])
    schema = sources.find(config.SCHEMA)
    setting = "--dsn" if sources.given("--dsn") else "DATABASE_URL"
    dry_run = sources.is_on("--dry-run")
    changes, advice = grant(
        dsn,
        schema=schema,
        setting=setting,
        django=sources.is_on("--django"),
        dry_run=dry_run,
    )
    for change in changes:
        output.said(msgspec.to_builtins(change), f"{change.change:<8} {change.what}")
    for line in advice:
        output.said(msgspec.to_builtins(line), f"advice   {line.advice}  -- {line.why}")
    output.remark(f"{len(changes)} rights and roles {'would change' if dry_run else 'changed'}")
    creators = find_creators(dsn, schema, setting)
    for creator in creators:
        output.said(
            {"error": f"{creator.role} may make objects in the schema", "why": WHY, "remedy": creator.remedy},
            f"error    {creator.remedy}  -- {creator.role} may make objects in the schema: {WHY}",
        )
    return ExitCode.FAILURE if creators else ExitCode.OK
