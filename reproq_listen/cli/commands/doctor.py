"""`reproq-listen doctor`: what is wrong here, why it matters, and what cures it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import Output
from reproq_listen.config import settings as config
from reproq_listen.db import dsn as dsns
from reproq_listen.doctor.examination import Questions, examine
from reproq_listen.doctor.findings import Finding, Level
from reproq_listen.errors import ExitCode
from reproq_listen.logs.json_lines import set_up

USAGE = """
Examine what a worker with these settings would meet: connection, server, clock, other people's transactions, whether
LISTEN hears, schema, migrations, functions, indexes, rights, and what runs the tasks. Changes nothing.
Each finding says what, why it matters, and a command or statement that cures it.

Usage:
  {program} doctor [options]

Options:
  --dsn DSN                    The database (or DATABASE_URL), as the role that is to work.
  --listen-dsn DSN             Where the worker would LISTEN (as --dsn).
  --schema NAME                The schema that holds reproq's functions (the search path finds it).
  --config PATH                A configuration file, as for worker.
  --allowed-task-modules LIST  As for worker (ALLOWED_TASK_MODULES).
  --executor-module MODULE     As for worker.
  --python-bin PATH            As for worker.
  --output FORMAT              text, or json: one object a finding, with check, level, what, why and cure (text).
  -h --help                    Show this.

Levels: ok; warning: it works, and may not for long or not safely; error: something does not work.

Exit codes: 0 no finding of level error, 1 at least one, 2 wrong flag or setting. A database that does not answer is a
finding.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Examine, print each finding as it is found, and give the exit code."""
    sources = config.read_sources(flags, os.environ)
    settings = config.worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    output = Output(flags["--output"])
    assert settings.dsn is not None
    secrets = dsns.secrets(settings.dsn) | (dsns.secrets(settings.listen_dsn) if settings.listen_dsn else frozenset())
    questions = Questions(
        dsn=settings.dsn,
        listen_dsn=settings.listen_dsn,
        schema=settings.schema,
        python_bin=settings.python_bin,
        executor_module=settings.executor_module,
        allowed_task_modules=settings.allowed_task_modules,
        program=program,
    )
    found: list[Finding] = []

    def report(finding: Finding) -> None:
        found.append(finding)
        _print(finding, output)

    asyncio.run(examine(questions, report, set_up(secrets, level=logging.CRITICAL)))
    errors = sum(finding.level is Level.ERROR for finding in found)
    warnings = sum(finding.level is Level.WARNING for finding in found)
    output.remark(f"\n{len(found)} findings: {errors} errors, {warnings} warnings")
    return ExitCode.FAILURE if errors else ExitCode.OK


def _print(finding: Finding, output: Output) -> None:
    lines = [f"{finding.level:<8} {finding.check:<21} {finding.what}"]
    if finding.cure:
        lines += [f"{'':30} why:  {finding.why}", f"{'':30} cure: {finding.cure}"]
    output.said(msgspec.to_builtins(finding), "\n".join(lines))
