"""`reproq-listen doctor`: what is wrong, why it matters, and the remedy."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping

import msgspec

from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.settings import read_sources, worker_settings_of
from reproq_listen.db.dsn import secrets
from reproq_listen.doctor.examination import DoctorSettings, examine
from reproq_listen.doctor.findings import Finding, Level
from reproq_listen.errors import ExitCode
from reproq_listen.logs.json_lines import set_up

USAGE = """
Checks connection, server, clock, long transactions, delivery of LISTEN, schema, migrations,
functions, indexes, rights, and the module that runs tasks. Changes nothing. Give it the settings of
the worker, and the role that the worker uses.

Usage:
  {program} doctor [options]

Options:
{doctor}

Levels: ok; warning: works now, but may stop working or is not safe; error: something does not work.
With --output json: one object per finding, with check, level, what, why and remedy.

Exit codes: 0 no finding of level error, 1 at least one, 2 wrong flag or setting. A database that
does not answer is a finding.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Examine, print each finding as it is found, and give the exit code."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    settings = worker_settings_of(sources, os.environ, as_reproq=program == "reproq")
    output = CommandOutput(flags)
    assert settings.dsn is not None
    hidden = secrets(settings.dsn) | (secrets(settings.listen_dsn) if settings.listen_dsn else frozenset())
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

    asyncio.run(examine(examined, report, set_up(hidden, level=logging.CRITICAL)))
    errors = sum(finding.level is Level.ERROR for finding in found)
    warnings = sum(finding.level is Level.WARNING for finding in found)
    output.remark(f"\n{len(found)} findings: {errors} errors, {warnings} warnings")
    return ExitCode.FAILURE if errors else ExitCode.OK


def _print(finding: Finding, output: CommandOutput) -> None:
    lines = [f"{finding.level:<8} {finding.check:<21} {finding.what}"]
    if finding.remedy:
        lines += [f"{'':30} why:    {finding.why}", f"{'':30} remedy: {finding.remedy}"]
    output.result(msgspec.to_builtins(finding), "\n".join(lines))
