"""`reproq-listen tasks`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import cast

from reproq_listen.cli.output import CommandOutput
from reproq_listen.cli.python_modules import load, tasks
from reproq_listen.errors import ExitCode

USAGE = """
Lists the functions with the decorator in these modules. Needs no database.

Usage:
  {program} tasks ls MODULE... [options]

Options:
  --output FORMAT  text, or json: one object per line. (default: text)
{help}

Options that are not shown have the defaults of the database. A task that is enqueued by its path,
from SQL for example, does not have them.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """List."""
    output = CommandOutput(flags)
    rows = []
    for name in cast("list[str]", flags["MODULE"]):
        for task in tasks(load(name)):
            options = {key: _shown(value) for key, value in task.parameters.items()}
            for key, kinds in (("retry_on", task.retry_on), ("discard_on", task.discard_on)):
                if kinds:
                    options[key] = [kind.__name__ for kind in kinds]
            row = {"task_path": task.module_path, "signature": str(inspect.signature(task.func)), "options": options}
            rows.append(row)
    output.rows(rows, ("task_path", "signature", "options"), nothing="no tasks")
    return ExitCode.OK


def _shown(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value
