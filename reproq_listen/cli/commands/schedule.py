"""`reproq-listen schedule`: periodic tasks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import cast

from reproq_listen.cli import json_input
from reproq_listen.cli.commands.enqueue import INTEGER, POSITIVE, instant
from reproq_listen.cli.operator import given, required, retry_while_busy, run_operator
from reproq_listen.cli.output import CommandOutput
from reproq_listen.cli.python_modules import load, schedules
from reproq_listen.config import parsers
from reproq_listen.config.sources import Sources
from reproq_listen.db.operator_queries import Operator, Record
from reproq_listen.errors import ExitCode, SettingError
from reproq_listen.scheduler.cron import Cron

USAGE = """
A beat enqueues the runs: start `{program} beat`, or a worker with --beat.

Usage:
  {program} schedule set --name NAME --cron EXPR --task-path PATH [--time-zone ZONE]
              [--args JSON] [--kwargs JSON] [--queue NAME] [--priority N] [--max-attempts N]
              [--concurrency-key KEY] [--concurrency-limit N] [--misfire POLICY] [--overlap POLICY]
              [--disabled] [options]
  {program} schedule sync MODULE... [--prune] [options]
  {program} schedule ls [options]
  {program} schedule rm --name NAME [options]
  {program} schedule preview --cron EXPR [--time-zone ZONE] [--count N] [--from TIME] [options]

  set      Create or change a schedule. A flag that is left out means its default, also on a change.
  sync     Set the schedules that these Python modules list under the name schedules.
  ls       List all schedules.
  rm       Remove a schedule. Tasks that it has enqueued stay.
  preview  Show when an expression runs. Needs no database.

Options:
  --name NAME  Name of the schedule.
  --cron EXPR  Minute, hour, day of month, month and day of week, as in "*/5 * * * *". Names, ranges, lists, steps, L,
               LW and # are allowed. Also @yearly, @monthly, @weekly, @daily and @hourly.
  --task-path PATH  Function to run, such as shop.tasks.report.
  --time-zone ZONE  IANA time zone of the expression. (default: UTC)
  --args JSON  Positional arguments: a JSON array. (default: [])
  --kwargs JSON  Keyword arguments: a JSON object. (default: {{}})
  --queue NAME  Queue of the runs. (default: default)
  --priority N  Priority; a higher number starts first. (default: 0)
  --max-attempts N  Number of attempts of each run. (default: 3)
  --concurrency-key KEY  Run at most --concurrency-limit tasks with this key at the same time.
  --concurrency-limit N  Limit for --concurrency-key; 0 = no limit. (default: 0)
  --misfire POLICY  Runs to enqueue after a time without a beat: skip (none), one (the last) or all (the last 100).
                    (default: one)
  --overlap POLICY  What to do while an earlier run has not ended: allow, skip or queue_one. (default: allow)
  --disabled  Keep the schedule, and enqueue no runs.
  --count N  Number of runs to show. (default: 10)
  --from TIME  Show runs after this time, such as 2026-12-24T18:00:00+01:00. (default: now)
  --prune  Remove all schedules that these modules do not list.
{reason}
{operators}

Changes of the clock work as in Debian's cron. A fixed time (neither minute nor hour begins with *)
runs once a day: a run in the skipped hour comes right after it, and a run in the repeated hour
comes the first time. All other expressions follow elapsed time. preview shows it.

Exit codes: 0 done; 6 rm: the schedule does not exist; others as in {program} --help.
"""

_COLUMNS = (
    *("name", "cron_expr", "time_zone", "task_path", "queue_name", "enabled", "last_run_at", "next_run_at"),
    *("last_status", "problem"),
)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Set, list, remove or preview."""
    sources = Sources(flags, os.environ)
    if flags["preview"]:
        return _preview(sources, CommandOutput(flags))
    if flags["ls"]:
        return run_operator(flags, program, _ls)
    if flags["sync"]:
        return _sync(flags, program)
    name = required(sources, "--name", parsers.name(512))
    if flags["rm"]:

        async def remove(operator: Operator, output: CommandOutput) -> ExitCode:
            removed = await retry_while_busy(lambda: operator.schedule_rm(name))
            output.result(
                {"name": name, "removed": removed}, f"{name}: {'removed' if removed else 'the schedule does not exist'}"
            )
            return ExitCode.OK if removed else ExitCode.MISSING

        return run_operator(flags, program, remove)
    arguments = {"name": name, **_schedule(sources)}

    async def put(operator: Operator, output: CommandOutput) -> ExitCode:
        answer = await retry_while_busy(lambda: operator.schedule_set(arguments))
        output.result({"name": name, "answer": answer}, f"{name}: {answer}")
        return ExitCode.OK

    return run_operator(flags, program, put)


def _sync(flags: Mapping[str, object], program: str) -> ExitCode:
    """Set what the modules declare; nothing is written if one of the expressions is wrong."""
    declared = [entry for name in cast("list[str]", flags["MODULE"]) for entry in schedules(load(name))]
    names = [entry.name for entry in declared]
    for entry in declared:
        if names.count(entry.name) > 1:
            raise SettingError(f"schedule {entry.name} is declared twice: names are unique")
        try:
            Cron(entry.cron, entry.time_zone)
        except ValueError as error:
            raise SettingError(f"schedule {entry.name}: {error}") from None

    async def put(operator: Operator, output: CommandOutput) -> ExitCode:
        for entry in declared:
            answer = await retry_while_busy(lambda: operator.schedule_set(entry.parameters()))  # noqa: B023
            output.result({"name": entry.name, "answer": answer}, f"{entry.name}: {answer}")
        others = [str(row["name"]) for row in await operator.schedules()] if flags["--prune"] else []
        for name in others:
            if name not in names:
                await retry_while_busy(lambda: operator.schedule_rm(name))  # noqa: B023
                output.result({"name": name, "answer": "removed"}, f"{name}: removed")
        return ExitCode.OK

    return run_operator(flags, program, put)


def _cron(sources: Sources) -> Cron:
    """The expression and zone that the flags give. Raises SettingError."""
    expression = required(sources, "--cron", parsers.name(4096))
    try:
        return Cron(expression, given(sources, "--time-zone", parsers.name(255)) or "UTC")
    except ValueError as error:
        raise SettingError(f"schedule: {error}") from None


def _schedule(sources: Sources) -> dict[str, object]:
    _cron(sources)
    return {
        "cron_expr": required(sources, "--cron", str),
        "task_path": required(sources, "--task-path", parsers.name(1024)),
        "time_zone": given(sources, "--time-zone", str) or "UTC",
        "args": given(sources, "--args", json_input.array) or "[]",
        "kwargs": given(sources, "--kwargs", json_input.mapping) or "{}",
        "queue_name": given(sources, "--queue", parsers.name(512)) or "default",
        "priority": given(sources, "--priority", INTEGER) or 0,
        "max_attempts": given(sources, "--max-attempts", POSITIVE) or 3,
        "concurrency_key": given(sources, "--concurrency-key", parsers.name(1 << 20)),
        "concurrency_limit": given(sources, "--concurrency-limit", parsers.whole_number(0, parsers.MAX_INTEGER)) or 0,
        "misfire": given(sources, "--misfire", parsers.one_of("skip", "one", "all")) or "one",
        "overlap": given(sources, "--overlap", parsers.one_of("allow", "skip", "queue_one")) or "allow",
        "enabled": not sources.is_on("--disabled"),
        "options": "{}",
    }


async def _ls(operator: Operator, output: CommandOutput) -> ExitCode:
    schedules = await operator.schedules()
    for schedule in schedules:
        schedule["problem"] = _problem(schedule)
    output.rows(schedules, _COLUMNS, nothing="no schedules")
    return ExitCode.OK


def _problem(schedule: Record) -> str | None:
    """Why no beat runs it; None if one will."""
    try:
        Cron(schedule["cron_expr"], schedule["time_zone"])
    except ValueError as error:
        return str(error)
    return "no beat has planned it yet" if schedule["enabled"] and not schedule["planned"] else None


def _preview(sources: Sources, output: CommandOutput) -> ExitCode:
    cron = _cron(sources)
    count = given(sources, "--count", parsers.whole_number(1, 10_000)) or 10
    text = given(sources, "--from", instant)
    start = datetime.now(UTC) if text is None else datetime.fromisoformat(text)
    rows: list[Record] = []
    offset = start.astimezone(cron.zone).utcoffset()
    for at in islice(cron.after(start), count):
        local = at.astimezone(cron.zone)
        changed = local.utcoffset() != offset
        offset = local.utcoffset()
        note = f"the clock is now {local:%z}" if changed else None
        rows.append({"occurrence": at, "local_time": f"{local:%a %Y-%m-%d %H:%M %z}", "note": note})
    output.rows(rows, nothing="never within 50 years")
    return ExitCode.OK
