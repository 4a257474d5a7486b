"""Checks of the schema: it exists, is complete and of this version, and is vacuumed."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import psycopg

from reproq_listen.db import remedies
from reproq_listen.db.catalog_queries import Record
from reproq_listen.db.contract import CONTRACT, Served
from reproq_listen.db.migrations import NotOwnerError, StepReport, migrate
from reproq_listen.doctor.findings import Finding, error, ok, warning
from reproq_listen.doctor.shipped import ShippedFunction, ShippedIndex
from reproq_listen.errors import ReproqError

_MANY_DEAD = 10_000
_DEAD_SHARE = 0.5
_NAMED = 8  # names in a finding; the rest is counted


def missing(elsewhere: Sequence[str], migrate_command: str) -> Finding:
    """The finding when a worker would not find the functions."""
    remedy = f"name it: --schema {elsewhere[0]}" if elsewhere else migrate_command
    where = f"; there are some in {', '.join(elsewhere)}" if elsewhere else ""
    return error("schema", f"no reproq functions on the search path{where}", "a worker does not start", remedy)


def contract(served: Served, migrate_command: str) -> Finding:
    """The schema serves the interface that this program speaks."""
    refusal = served.refusal()
    if refusal is None:
        return ok("contract", f"the schema serves contract {CONTRACT}")
    is_older = served.newest < CONTRACT
    remedy = migrate_command if is_older else "install the release of reproq-listen that matches the schema"
    return error("contract", refusal, "a worker does not start", remedy)


def pending(dsn: str, schema: str | None, migrate_command: str) -> Finding:
    """Every migration of this version is applied. Opens a connection of its own; writes nothing."""
    steps: list[StepReport] = []
    try:
        migrate(dsn, schema=schema, dry_run=True, report=steps.append)
    except NotOwnerError:
        return ok("migrations", "this role may not read which migrations are applied; the functions are compared below")
    except (ReproqError, psycopg.Error) as problem:
        return error(
            "migrations",
            f"they cannot be read: {problem}",
            "the schema may be out of date",
            f"solve that first, then: {migrate_command}",
        )
    waiting = [step.step for step in steps if step.outcome == "pending"]
    if waiting:
        return error(
            "migrations",
            f"not applied: {named(waiting)}",
            "functions or constraints that this version needs are missing",
            migrate_command,
        )
    return ok("migrations", f"all {len(steps)} are applied")


Remedy = Callable[[Collection[str]], str]
"""Gives the shell command that creates the functions, triggers and views of these names again."""


def drift(shipped: Mapping[str, ShippedFunction], found: Collection[Record], remedy: Remedy) -> list[Finding]:
    """The functions in the database equal those of this version: body, rights and search path."""
    present = {row["name"]: row for row in found}
    lacking = sorted(shipped.keys() - present.keys())
    changed = sorted(
        name for name, function in shipped.items() if name in present and not _is_as_shipped(present[name], function)
    )
    findings = []
    if lacking:
        findings.append(error("functions", f"missing: {named(lacking)}", "calls to them fail", remedy(lacking)))
    if changed:
        findings.append(
            warning(
                "functions",
                f"different from this version: {named(changed)}",
                "they were changed by hand, or the schema is of another version; they are not the tested functions",
                remedy(changed),
            )
        )
    return findings or [ok("functions", f"all {len(shipped)} equal this version")]


def _is_as_shipped(found: Record, shipped: ShippedFunction) -> bool:
    return (found["body"], found["is_definer"], found["has_path"]) == (
        shipped.body,
        shipped.is_definer,
        shipped.has_path,
    )


def triggers(shipped: Collection[str], found: Collection[Record], schema: str, remedy: Remedy) -> list[Finding]:
    """The triggers that notify workers and coerce rows written by others exist and are enabled."""
    why = "new tasks do not wake workers, or rows written by other programs are not coerced"
    lacking = sorted(set(shipped) - {row["name"] for row in found})
    findings = [
        error(
            "triggers",
            f"{row['name']} on {row['on_table']} is disabled",
            why,
            remedies.enable_trigger(schema, row["on_table"], row["name"]),
        )
        for row in found
        if row["name"] in shipped and not row["is_enabled"]
    ]
    if lacking:
        findings.append(error("triggers", f"missing: {named(lacking)}", why, remedy(lacking)))
    return findings or [ok("triggers", f"all {len(shipped)} exist and are enabled")]


def views(shipped: Collection[str], relations: Collection[Record], remedy: Remedy) -> Finding:
    """The views that commands and people read exist."""
    lacking = sorted(set(shipped) - {row["name"] for row in relations if row["kind"] == "v"})
    if lacking:
        return error("views", f"missing: {named(lacking)}", "commands that read them fail", remedy(lacking))
    return ok("views", f"all {len(shipped)} exist")


def indexes(
    shipped: Mapping[str, ShippedIndex], relations: Collection[Record], schema: str, migrate_command: str | None
) -> list[Finding]:
    """Every index exists and is valid: the unique ones keep the promises, the others the speed.

    `migrate_command`: given while migrations are pending, which may create them.
    """
    there = {row["name"]: row["is_valid"] for row in relations if row["kind"] == "i"}
    findings = [
        error(
            "indexes",
            f"{name} is invalid",
            "its creation was interrupted: it slows writes, speeds up nothing, and guarantees nothing",
            remedies.rebuild(schema, name),
        )
        for name, is_valid in sorted(there.items())
        if not is_valid
    ]
    lacking = sorted(shipped.keys() - there.keys())
    why = "claims become slow, or promises such as one running task for a lock key are not kept"
    if lacking and migrate_command:
        findings.append(error("indexes", f"missing: {named(lacking)}", why, migrate_command))
    elif lacking:
        for name in lacking:
            index = shipped[name]
            remedy = remedies.build(schema, name, index.columns, index.table, unique=index.is_unique)
            findings.append(error("indexes", f"missing: {name}", why, remedy))
    return findings or [ok("indexes", f"all {len(shipped)} exist and are valid")]


def row_security(relations: Collection[Record], schema: str) -> Finding:
    """The owner, as which our functions run, sees all rows."""
    forced = sorted(row["name"] for row in relations if row["is_row_security_forced"])
    if forced:
        return error(
            "row_security",
            f"row-level security is forced on {named(forced)}",
            "the functions run as the owner, who sees only what a policy shows: tasks are neither found nor claimed",
            remedies.row_security_not_forced(schema, forced),
        )
    return ok("row_security", "row-level security is not forced on the owner")


def autovacuum(server: Record, relations: Collection[Record], vacuum: Record | None, schema: str) -> list[Finding]:
    """Dead rows of task_runs are removed: every task leaves several."""
    options = next((row["options"] or [] for row in relations if row["name"] == "task_runs"), [])
    findings = []
    if not server["autovacuum"]:
        remedy = remedies.autovacuum_on()
        findings.append(
            error("autovacuum", "autovacuum is off on this server", "claims become slower and slower", remedy)
        )
    # As it was typed: PostgreSQL accepts any beginning of these words.
    if any(re.fullmatch(r"autovacuum_enabled=(f\w*|no?|of\w*|0)", option, re.IGNORECASE) for option in options):
        remedy = remedies.autovacuum_table(schema)
        findings.append(
            error("autovacuum", "autovacuum is off for task_runs", "claims become slower and slower", remedy)
        )
    dead, live = (vacuum["dead"], vacuum["live"]) if vacuum else (0, 0)
    if dead > _MANY_DEAD and dead > _DEAD_SHARE * live:
        findings.append(
            warning(
                "autovacuum",
                f"task_runs has {dead} dead and {live} live rows",
                "vacuum does not keep up: every claim reads dead rows",
                remedies.vacuum_often(schema),
            )
        )
    return findings or [ok("autovacuum", f"task_runs has {dead} dead and {live} live rows")]


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
