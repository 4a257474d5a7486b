"""Checks of the schema: is it there, complete, of this version, and kept clean?"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import psycopg

from reproq_listen.db import remedies as cures
from reproq_listen.db.catalog_queries import Record
from reproq_listen.db.contract import CONTRACT, Served
from reproq_listen.db.migrations import NotOwnerError, StepReport, migrate
from reproq_listen.doctor.findings import Finding, error, ok, warning
from reproq_listen.doctor.shipped import ShippedFunction, ShippedIndex
from reproq_listen.errors import ReproqError

_MANY_DEAD = 10_000
_DEAD_SHARE = 0.5
_NAMED = 8  # so many names in a finding; the rest is counted


def missing(elsewhere: Sequence[str], migrate_command: str) -> Finding:
    """The finding when reproq's functions are not where a worker would look for them."""
    cure = f"name it: --schema {elsewhere[0]}" if elsewhere else migrate_command
    where = f"; there are some in {', '.join(elsewhere)}" if elsewhere else ""
    return error("schema", f"no reproq functions on the search path{where}", "a worker refuses to start", cure)


def contract(served: Served, migrate_command: str) -> Finding:
    """The schema serves the interface that this program speaks."""
    refusal = served.refusal()
    if refusal is None:
        return ok("contract", f"the schema serves contract {CONTRACT}")
    cure = migrate_command if served.newest < CONTRACT else "install the release of reproq-listen that fits the schema"
    return error("contract", refusal, "a worker refuses to start", cure)


def pending(dsn: str, schema: str | None, migrate_command: str) -> Finding:
    """Every migration of this version is applied. Opens a connection of its own; writes nothing."""
    steps: list[StepReport] = []
    try:
        migrate(dsn, schema=schema, dry_run=True, report=steps.append)
    except NotOwnerError:
        return ok("migrations", "this role may not read the record of migrations; functions are compared below")
    except (ReproqError, psycopg.Error) as problem:
        return error(
            "migrations",
            f"they cannot be looked at: {problem}",
            "the schema may be old",
            f"cure that first, then: {migrate_command}",
        )
    waiting = [step.step for step in steps if step.outcome == "pending"]
    if waiting:
        return error(
            "migrations",
            f"not applied: {named(waiting)}",
            "functions or constraints that this version relies on are missing",
            migrate_command,
        )
    return ok("migrations", f"all {len(steps)} are applied")


Cure = Callable[[Collection[str]], str]
"""How to make the functions, triggers and views of these names anew: a command for the shell."""


def drift(shipped: Mapping[str, ShippedFunction], found: Collection[Record], cure: Cure) -> list[Finding]:
    """The functions in the database are the ones that this version ships, text and rights to act included."""
    present = {row["name"]: row for row in found}
    lacking = sorted(shipped.keys() - present.keys())
    changed = sorted(
        name for name, function in shipped.items() if name in present and not _is_as_shipped(present[name], function)
    )
    findings = []
    if lacking:
        findings.append(error("functions", f"missing: {named(lacking)}", "calls that need them fail", cure(lacking)))
    if changed:
        findings.append(
            warning(
                "functions",
                f"other than shipped: {named(changed)}",
                "somebody changed them, or the schema is of another version; what they promise is not tested",
                cure(changed),
            )
        )
    return findings or [ok("functions", f"all {len(shipped)} are as shipped")]


def _is_as_shipped(found: Record, shipped: ShippedFunction) -> bool:
    return (found["body"], found["is_definer"], found["has_path"]) == (
        shipped.body,
        shipped.is_definer,
        shipped.has_path,
    )


def triggers(shipped: Collection[str], found: Collection[Record], schema: str, cure: Cure) -> list[Finding]:
    """The triggers that ring the bell and normalise rows of others are there and switched on."""
    why = "tasks wake nobody, or rows that others write are not put right"
    lacking = sorted(set(shipped) - {row["name"] for row in found})
    findings = [
        error(
            "triggers",
            f"{row['name']} on {row['on_table']} is switched off",
            why,
            cures.enable_trigger(schema, row["on_table"], row["name"]),
        )
        for row in found
        if row["name"] in shipped and not row["is_enabled"]
    ]
    if lacking:
        findings.append(error("triggers", f"missing: {named(lacking)}", why, cure(lacking)))
    return findings or [ok("triggers", f"all {len(shipped)} are there and switched on")]


def views(shipped: Collection[str], relations: Collection[Record], cure: Cure) -> Finding:
    """The views that commands and people read are there."""
    lacking = sorted(set(shipped) - {row["name"] for row in relations if row["kind"] == "v"})
    if lacking:
        return error("views", f"missing: {named(lacking)}", "commands that read them fail", cure(lacking))
    return ok("views", f"all {len(shipped)} are there")


def indexes(
    shipped: Mapping[str, ShippedIndex], relations: Collection[Record], schema: str, migrate_command: str | None
) -> list[Finding]:
    """Every index is there and valid: the unique ones keep the promises, the others the speed.

    `migrate_command`: given while migrations are pending, which may make them.
    """
    there = {row["name"]: row["is_valid"] for row in relations if row["kind"] == "i"}
    findings = [
        error(
            "indexes",
            f"{name} is invalid",
            "building it was broken off: it costs writes, serves nobody, and excludes nothing",
            cures.rebuild(schema, name),
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
            cure = cures.build(schema, name, index.columns, index.table, unique=index.is_unique)
            findings.append(error("indexes", f"missing: {name}", why, cure))
    return findings or [ok("indexes", f"all {len(shipped)} are there and valid")]


def autovacuum(server: Record, relations: Collection[Record], vacuum: Record | None, schema: str) -> list[Finding]:
    """Dead rows of task_runs are removed: a queue makes several for every task."""
    options = next((row["options"] or [] for row in relations if row["name"] == "task_runs"), [])
    findings = []
    if not server["autovacuum"]:
        cure = cures.autovacuum_on()
        findings.append(error("autovacuum", "autovacuum is off on this server", "claims become slower for ever", cure))
    # As written by whoever set it; PostgreSQL takes any beginning of these words.
    if any(re.fullmatch(r"autovacuum_enabled=(f\w*|no?|of\w*|0)", option, re.IGNORECASE) for option in options):
        cure = cures.autovacuum_table(schema)
        findings.append(error("autovacuum", "autovacuum is off for task_runs", "claims become slower for ever", cure))
    dead, live = (vacuum["dead"], vacuum["live"]) if vacuum else (0, 0)
    if dead > _MANY_DEAD and dead > _DEAD_SHARE * live:
        findings.append(
            warning(
                "autovacuum",
                f"task_runs has {dead} dead rows beside {live} live ones",
                "vacuum does not keep up: every claim steps over dead rows",
                cures.vacuum_often(schema),
            )
        )
    return findings or [ok("autovacuum", f"task_runs has {dead} dead rows beside {live} live ones")]


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
