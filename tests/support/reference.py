"""Writes the reference from the program and from a migrated database, and the example files: `make docs`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import LiteralString

import psycopg

from reproq_listen.cli import main as cli
from reproq_listen.cli import reference
from reproq_listen.embedded.server import EmbeddedServer
from reproq_listen.model import TaskError
from tests.support.database import ROOT, SQL_FOLDER, build, create_database

DOCS = ROOT / "reproq_listen" / "docs"
MARK = "<!-- Made by `make docs`. Do not edit. -->"

STATES = {
    "READY": "It may start when it is due and its keys, limits and queue allow it.",
    "RUNNING": "A worker runs it and holds its lease.",
    "WAITING": "It waits for the step before it in a chain, or for the members of its chord.",
    "SUCCESSFUL": "Final. The result is in `return_json`.",
    "FAILED": "Final. The last entry of `errors_json` says why. Cancelled and expired tasks are FAILED, too.",
    "CANCELLED": "Final. Only other programs, such as Reproq Django's admin, write this state.",
}
KINDS = {
    "app_error": "The task raised an exception.",
    "timeout": "The task ran longer than `timeout_seconds` or `--exec-timeout`.",
    "crashed": "The process of the task ended without a result. `crash_class` says how.",
    "lease_expiry": "The lease expired: the worker died, or lost its database for too long.",
    "cancelled": "The task was cancelled.",
    "expired": "The task did not start before `expires_at`.",
    "invalid_spec": "The task cannot be called: no such form of path, or no function.",
    "invalid_result": "The return value is not JSON, or is too large.",
    "payload_too_large": "The spec is larger than `max_payload_bytes` of the worker, or than a claim ships.",
    "discarded": "The task raised `Discard`, or `discard_on` names its exception, or `retry_on` does not.",
    "security_violation": "The path is outside `--allowed-task-modules`, or names another module's function.",
    "parent_failed": "The step before it in the chain did not succeed.",
    "workflow_failed": "A member of its chord did not succeed.",
    "retry_asked": "The task raised `Retry`.",
    "completion_lost": "The task completed in its own transaction, and the database lost that transaction.",
    "snooze_limit": "The task raised `Snooze` more than 1,000 times.",
}
_AUDIENCES = {
    "produce": "Enqueue",
    "operate": "Operate",
    "observe": "Look",
    "schedule": "Schedules",
    "work": "Work: what a worker and a beat call",
}
"""Folders of sql/functions with functions for others, in the order of the page."""
_ERROR_KEYS = (*TaskError.__struct_fields__, "at", "attempt", "worker_id", "task_path")
_CRASH_CLASSES = {
    "oom": "memory ran out: the kernel killed the process, or `--max-memory-per-task` was reached",
    "signal": "a signal ended the process; `signal` names it",
    "exit": "the process exited by itself without a result; `exit_status` has its status",
    "timeout": "the worker stopped it after its timeout",
}
_SQLSTATES = {
    "RQ001": "An argument of a function is wrong. The message and the hint name it and the remedy.",
    "RQ002": "This cannot be a task. The message names the key; the detail says which task of the call.",
    "RQ003": "The transaction does not run at isolation level READ COMMITTED.",
    "RQ004": "A migration found rows that a person must judge. The detail lists them.",
}


def commands() -> str:
    """What --help of the program and of each command says."""
    parts = [
        "# Commands: usage, flags and exit codes of each command\n",
        "Each section is what `--help` prints.\n",
        _block(cli.usage("reproq-listen")),
    ]
    for name in cli.COMMANDS:
        parts += [f"## {name}\n", _block(cli.command_usage(name, "reproq-listen"))]
    return "\n".join(parts)


def _block(usage: str) -> str:
    return f"```text\n{usage}\n```\n"


def states_and_errors(conn: psycopg.Connection) -> str:
    """States, error kinds, crash classes, SQLSTATEs, reasons of explain, exit codes."""
    exits = re.findall(r"^  (\d+)  +(.*)$", cli.USAGE, re.MULTILINE)
    reasons = sorted({reason for (source,) in conn.execute(_EXPLAIN_SOURCES) for reason in _REASON.findall(source)})
    return "\n".join(
        [
            "# States and errors: task states, error kinds, SQLSTATEs, exit codes\n",
            "## States of a task\n",
            "The state is in `task_runs.status`.\n",
            _table(("state", "meaning"), [(f"`{state}`", STATES[state]) for state in states(conn)]),
            "## Kinds of errors\n",
            "Each failed attempt appends an object to `task_runs.errors_json`. Its key `kind` is one of these. "
            "`last_error` is one line: kind and message.\n",
            _table(
                ("kind", "meaning", "tried again while attempts are left"),
                [(f"`{kind}`", meaning, "yes" if retryable(conn, kind) else "no") for kind, meaning in KINDS.items()],
            ),
            f"An error has these keys, where they are known: {', '.join(f'`{name}`' for name in _ERROR_KEYS)}.\n",
            "## Crash classes\n",
            "The key `crash_class` of an error says how its process ended, unless the task just raised.\n",
            _table(("class", "meaning"), [(f"`{name}`", meaning) for name, meaning in _CRASH_CLASSES.items()]),
            "## SQLSTATEs\n",
            _table(("SQLSTATE", "meaning"), [(f"`{code}`", meaning) for code, meaning in _SQLSTATES.items()]),
            "PostgreSQL's own codes pass through: `22008` (a time or an interval out of its range), `54001` (nested "
            "too deeply), `0A000` (not supported by the server). The call had no effect then. Arrays have one "
            "dimension; the elements of others count in their order.\n",
            "## Reasons of reproq_explain\n",
            "`reproq_explain(id)` and `reproq-listen explain` answer with these reasons; `detail` says the rest.\n",
            ", ".join(f"`{reason}`" for reason in reasons) + "\n",
            "## Exit codes\n",
            _table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in exits]),
        ]
    )


_REASON = re.compile(r"select (?:true|false), '([a-z_]+)'")
_EXPLAIN_SOURCES: LiteralString = (
    "select prosrc from pg_proc where pronamespace = current_schema::regnamespace and proname like '%reproq_explain%'"
)


def states(conn: psycopg.Connection) -> list[str]:
    """The states that the trigger for foreign writes allows, in its order."""
    row = conn.execute("select prosrc from pg_proc where proname = '_reproq_coerce_foreign_write'").fetchone()
    assert row is not None
    (allowed,) = re.findall(r"when new.status not in \(([^)]*)\)", row[0])
    return re.findall(r"'([A-Z]+)'", allowed)


def retryable(conn: psycopg.Connection, kind: str) -> bool:
    """Whether a failure of this kind leads to another attempt, as SQL decides it."""
    row = conn.execute("select _reproq_is_retryable(jsonb_build_object('kind', %s::text))", [kind]).fetchone()
    return row is not None and bool(row[0])


def sql(conn: psycopg.Connection) -> str:
    """The functions, views and tables that users may name, as the catalog describes them."""
    parts = [
        "# SQL: functions, views and tables\n",
        "Made from the comments of the database. In psql `\\df reproq_*` lists the functions, and "
        "`\\sf reproq_explain` shows one; its header says what it returns, raises, locks and writes.\n",
    ]
    groups: dict[str, list[str]] = {folder: [] for folder in _AUDIENCES}
    for name, arguments, result, comment in conn.execute(_FUNCTIONS):
        (file,) = SQL_FOLDER.glob(f"functions/**/{name}.sql")
        signature = _signature(f"{name}({arguments}) -> {result}")
        groups[file.parent.name].append(f"### {name}\n\n{_without_version(comment)}\n\n{signature}\n")
    for folder, functions in groups.items():
        parts += [f"## {_AUDIENCES[folder]}\n", *functions]
    for kind, heading in (("v", "Views"), ("r", "Tables")):
        parts.append(f"## {heading}\n")
        for name, comment in conn.execute(_RELATIONS, [kind]).fetchall():
            columns = conn.execute(_COLUMNS, [name]).fetchall()
            rows = [(f"`{column}`", kind_, about or "") for column, kind_, about in columns]
            parts += [f"### {name}\n", f"{comment}\n", _table(("column", "type", "meaning"), rows)]
    return "\n".join(parts)


_FUNCTIONS: LiteralString = """
    select p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
    from pg_proc p
    where p.pronamespace = current_schema::regnamespace and starts_with(p.proname, 'reproq_')
      and p.prorettype <> 'trigger'::regtype
    order by p.proname
"""
_RELATIONS: LiteralString = """
    select c.relname, obj_description(c.oid, 'pg_class')
    from pg_class c
    where c.relnamespace = current_schema::regnamespace and c.relkind = %s
      and obj_description(c.oid, 'pg_class') is not null
    order by c.relname
"""
_COLUMNS: LiteralString = """
    select a.attname, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum)
    from pg_attribute a
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""


def _without_version(comment: str) -> str:
    return re.sub(r" @\S+$", "", comment)


def _signature(text: str) -> str:
    text = re.sub(r" DEFAULT NULL::[a-z ]+", " default null", text).replace(" DEFAULT ", " default ")
    text = text.replace("timestamp with time zone", "timestamptz").replace("TABLE(", "table(")
    lines = textwrap.wrap(text, 110, subsequent_indent="    ", break_long_words=False)
    return "```text\n" + "\n".join(lines) + "\n```"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


FROM_PROGRAM: dict[str, Callable[[], str]] = {
    "reference-commands": commands,
    "reference-settings": reference.settings,
    "reference-metrics-and-events": reference.metrics_and_events,
}
FROM_DATABASE: dict[str, Callable[[psycopg.Connection], str]] = {
    "reference-sql": sql,
    "reference-states-and-errors": states_and_errors,
}


def page(text: str) -> str:
    """The file of a page: its title, the mark, the rest."""
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{MARK}\n{rest}"


def write(conn: psycopg.Connection) -> None:
    """Write every page of the reference, and the example files."""
    texts = {name: make() for name, make in FROM_PROGRAM.items()}
    texts |= {name: make(conn) for name, make in FROM_DATABASE.items()}
    for name, text in texts.items():
        (DOCS / f"{name}.md").write_text(page(text))
    (ROOT / "reproq.example.yaml").write_text(reference.example_yaml())
    (ROOT / "reproq.example.toml").write_text(reference.example_toml())


if __name__ == "__main__":
    with EmbeddedServer() as server:
        database = create_database(server.dsn(), "reproq")
        build(database)
        with database.connect() as connection:
            write(connection)
