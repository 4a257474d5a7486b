"""`reproq-listen schedule`: periodic tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import islice

from reproq_listen.cli import json_input as task_files
from reproq_listen.cli import operator as operate
from reproq_listen.cli.commands.enqueue import instant
from reproq_listen.cli.output import Output
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.config.settings import Sources
from reproq_listen.db.operator_queries import Operator, Record
from reproq_listen.errors import ExitCode, SettingError
from reproq_listen.scheduler.cron import Cron

USAGE = """
Periodic tasks. A beat enqueues them (reproq-listen beat, or worker --beat).

Usage:
  {program} schedule set --name NAME --cron EXPR --task-path PATH [--time-zone ZONE] [--args JSON] [--kwargs JSON]
              [--queue NAME] [--priority N] [--max-attempts N] [--concurrency-key KEY] [--concurrency-limit N]
              [--misfire POLICY] [--overlap POLICY] [--disabled] [options]
  {program} schedule ls [options]
  {program} schedule rm --name NAME [options]
  {program} schedule preview --cron EXPR [--time-zone ZONE] [--count N] [--from TIME] [options]

  set      Make or change a schedule. What is not given has its default, also on a change.
  ls       Show all of them.
  rm       Remove one. Tasks that it enqueued stay.
  preview  Show when an expression runs; needs no database.

Options:
  --name NAME            Its name.
  --cron EXPR            Minute, hour, day of month, month, day of week, as in "*/5 * * * *"; names, ranges, lists,
                         steps, L, LW and # too; or @yearly, @monthly, @weekly, @daily, @hourly.
  --task-path PATH       What to run.
  --time-zone ZONE       IANA zone in which the expression is read (UTC).
  --args JSON            Positional arguments: an array ([]).
  --kwargs JSON          Keyword arguments: an object.
  --queue NAME           The queue (default).
  --priority N           Higher goes first (0).
  --max-attempts N       Attempts of each run (3).
  --concurrency-key KEY  So many at a time with this key as --concurrency-limit says.
  --concurrency-limit N  0 = no limit (0).
  --misfire POLICY       Runs missed while no beat ran: skip, one (the last), all (the last 100) (one).
  --overlap POLICY       While an earlier run has not ended: allow, skip, queue_one (allow).
  --disabled             Keep it, and do not run it.
  --count N              So many occurrences (10).
  --from TIME            Occurrences after this time (now), as in 2026-12-24T18:00:00+01:00.
  --reason TEXT          Why, for the audit log.
  --dsn DSN              The database (DATABASE_URL).
  --schema NAME          The schema that holds reproq's functions (the search path finds it).
  --output FORMAT        text, or json: one object a line (text).
  -h --help              Show this.

When the clock is put forward or back it is as with Debian's cron. Fixed times (neither minute nor hour begins with *)
run once a day: one that is skipped runs right after the gap, one that comes twice runs the first time. All else
follows elapsed time. preview shows it.

Exit codes: 0 done, 6 rm: there is no such schedule; else as {program} --help says.
"""

_MOST = 2**31 - 1
_COLUMNS = (
    *("name", "cron_expr", "time_zone", "task_path", "queue_name", "enabled", "last_run_at", "next_run_at"),
    *("last_status", "problem"),
)


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Do what the word after `schedule` says."""
    sources = config.Sources(flags, os.environ)
    if flags["preview"]:
        return _preview(sources, Output(flags["--output"]))
    if flags["ls"]:
        return operate.run(flags, program, _ls)
    name = operate.required(sources, "--name", values.name(512))
    if flags["rm"]:

        async def remove(operator: Operator, output: Output) -> ExitCode:
            removed = await operate.retry_while_busy(lambda: operator.schedule_rm(name))
            output.said({"name": name, "removed": removed}, f"{name}: {'removed' if removed else 'no such schedule'}")
            return ExitCode.OK if removed else ExitCode.MISSING

        return operate.run(flags, program, remove)
    arguments = {"name": name, **_schedule(sources)}

    async def put(operator: Operator, output: Output) -> ExitCode:
        answer = await operate.retry_while_busy(lambda: operator.schedule_set(arguments))
        output.said({"name": name, "answer": answer}, f"{name}: {answer}")
        return ExitCode.OK

    return operate.run(flags, program, put)


def _cron(sources: Sources) -> Cron:
    """The expression and zone that the flags give. Raises SettingError."""
    expression = operate.required(sources, "--cron", values.name(4096))
    try:
        return Cron(expression, operate.given(sources, "--time-zone", values.name(255)) or "UTC")
    except ValueError as error:
        raise SettingError(f"schedule: {error}") from None


def _schedule(sources: Sources) -> dict[str, object]:
    _cron(sources)
    return {
        "cron_expr": operate.required(sources, "--cron", str),
        "task_path": operate.required(sources, "--task-path", values.name(1024)),
        "time_zone": operate.given(sources, "--time-zone", str) or "UTC",
        "args": operate.given(sources, "--args", task_files.array) or "[]",
        "kwargs": operate.given(sources, "--kwargs", task_files.mapping) or "{}",
        "queue_name": operate.given(sources, "--queue", values.name(512)) or "default",
        "priority": operate.given(sources, "--priority", values.whole_number(-(2**31), _MOST)) or 0,
        "max_attempts": operate.given(sources, "--max-attempts", values.whole_number(1, _MOST)) or 3,
        "concurrency_key": operate.given(sources, "--concurrency-key", values.name(1 << 20)),
        "concurrency_limit": operate.given(sources, "--concurrency-limit", values.whole_number(0, _MOST)) or 0,
        "misfire": operate.given(sources, "--misfire", _one_of("skip", "one", "all")) or "one",
        "overlap": operate.given(sources, "--overlap", _one_of("allow", "skip", "queue_one")) or "allow",
        "enabled": not sources.is_on("--disabled"),
    }


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {values.shown(text)}")
        return text

    return parse


async def _ls(operator: Operator, output: Output) -> ExitCode:
    schedules = await operator.schedules()
    for schedule in schedules:
        schedule["problem"] = _problem(schedule)
    output.rows(schedules, _COLUMNS, nothing="no schedules")
    return ExitCode.OK


def _problem(schedule: Record) -> str | None:
    """Why a beat cannot run it, or that none has planned it yet."""
    try:
        Cron(schedule["cron_expr"], schedule["time_zone"])
    except ValueError as error:
        return str(error)
    return "no beat has planned it yet" if schedule["enabled"] and not schedule["planned"] else None


def _preview(sources: Sources, output: Output) -> ExitCode:
    cron = _cron(sources)
    count = operate.given(sources, "--count", values.whole_number(1, 10_000)) or 10
    text = operate.given(sources, "--from", instant)
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
