"""`reproq-listen doctor`: what is wrong, why it matters, and the remedy."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import Output
from reproq_listen.config import settings as config
from reproq_listen.db import dsn as dsns
from reproq_listen.doctor.examination import DoctorSettings, examine
from reproq_listen.doctor.findings import Finding, Level
from reproq_listen.errors import ExitCode
from reproq_listen.logs.json_lines import set_up

USAGE = """
Check everything that a worker with these settings needs: connection, server, clock, long transactions, notifications,
schema, migrations, functions, indexes, rights, and the Python that runs the tasks. It changes nothing.
Each finding shows what is wrong, why it matters, and the command or statement that mends it.

Usage:
  {program} doctor [options]

Options:
  --dsn DSN                    The database (or DATABASE_URL), as the role of the worker.
  --listen-dsn DSN             Where the worker would LISTEN (as --dsn).
  --schema NAME                The schema that holds reproq's functions (the search path finds it).
  --config PATH                A configuration file, as for worker.
  --allowed-task-modules LIST  As for worker (ALLOWED_TASK_MODULES).
  --executor-module MODULE     As for worker.
  --python-bin PATH            As for worker.
  --output FORMAT              text, or json: one object per finding, with check, level, what, why and remedy (text).
  -h --help                    Show this.

Levels: ok; warning: it works, but perhaps not safely or not for long; error: something does not work.

Exit codes: 0 no finding of level error, 1 at least one, 2 wrong flag or setting. A database that does not answer is a
finding.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Run the checks, print each finding at once, and give the exit code."""
    sources = config.read_sources(flags, os.environ)
    settings = config.worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    output = Output(flags["--output"])
    assert settings.dsn is not None
    secrets = dsns.secrets(settings.dsn) | (dsns.secrets(settings.listen_dsn) if settings.listen_dsn else frozenset())
    examined = DoctorSettings(
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

    asyncio.run(examine(examined, report, set_up(secrets, level=logging.CRITICAL)))
    errors = sum(finding.level is Level.ERROR for finding in found)
    warnings = sum(finding.level is Level.WARNING for finding in found)
    output.remark(f"\n{len(found)} findings: {errors} errors, {warnings} warnings")
    return ExitCode.FAILURE if errors else ExitCode.OK


def _print(finding: Finding, output: Output) -> None:
    lines = [f"{finding.level:<8} {finding.check:<21} {finding.what}"]
    if finding.remedy:
        lines += [f"{'':30} why:    {finding.why}", f"{'':30} remedy: {finding.remedy}"]
    output.said(msgspec.to_builtins(finding), "\n".join(lines))
