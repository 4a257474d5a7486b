"""Checks of rights: can this role do its work, and can nobody do more than he should?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reproq_listen.db import remedies as cures
from reproq_listen.db.catalog_queries import Record
from reproq_listen.db.creators import WHY
from reproq_listen.doctor.findings import Finding, error, ok, warning
from reproq_listen.doctor.schema import named
from reproq_listen.doctor.shipped import Rights

_WORKER = "reproq_worker"


def grants(
    role: str,
    rights: Mapping[str, Rights],
    groups: Collection[Record],
    functions: Collection[Record],
    relations: Collection[Record],
    grants_command: str,
) -> list[Finding]:
    """What this role is a member of, it can do; and it can work."""
    there = {row["name"] for row in (*functions, *relations)}  # what is missing is another check's finding
    rights = {name: Rights(allowed.functions & there, allowed.views & there) for name, allowed in rights.items()}
    executable = {row["name"] for row in functions if row["may_execute"]}
    readable = {row["name"] for row in relations if row["may_select"]}
    findings = []
    for group in groups:
        if not group["is_member"]:
            continue
        allowed = rights[group["name"]]
        lacking = sorted((allowed.functions - executable) | (allowed.views - readable))
        if lacking:
            cure = grants_command if group["inherits"] else cures.inherit(group["name"], role)
            what = f"{role} is a member of {group['name']} and may not use: {named(lacking)}"
            findings.append(error("grants", what, "calls to them are refused", cure))
    if findings:
        return findings
    able = sorted(
        name for name, allowed in rights.items() if allowed.functions <= executable and allowed.views <= readable
    )
    has = f"{role} has the rights of {', '.join(able)}" if able else f"{role} has no group's rights"
    if _WORKER in able:
        return [ok("grants", has)]
    lacking = sorted((rights[_WORKER].functions - executable) | (rights[_WORKER].views - readable))
    return [
        error(
            "grants",
            f"{has}; of {_WORKER}'s it lacks: {named(lacking)}",
            "a worker cannot start as this role",
            f"{grants_command}; then: {cures.join(_WORKER, role)}",
        )
    ]


def public_rights(functions: Collection[Record], grants_command: str) -> Finding:
    """Not everybody may call our functions."""
    open_to_all = sorted(row["name"] for row in functions if row["public_may_execute"])
    if open_to_all:
        return error(
            "public_rights",
            f"PUBLIC may execute {named(open_to_all)}",
            "they run with their owner's rights for whoever can connect",
            grants_command,
        )
    return ok("public_rights", "PUBLIC may execute none of the functions")


def schema_is_closed(schema: str, creators: Collection[Record]) -> list[Finding]:
    """Only the owner may make objects where our functions look for names."""
    found = [
        error("schema_is_closed", f"{row['role']} may make objects in schema {schema}", WHY, row["remedy"])
        for row in creators
    ]
    return found or [ok("schema_is_closed", f"only the owner may make objects in schema {schema}")]


def owner(schema: Record) -> Finding:
    """The functions lend somebody's rights to their callers: better not a superuser's."""
    if schema["owner_is_superuser"]:
        return warning(
            "owner",
            f"the functions belong to {schema['owner']}, a superuser",
            "a mistake in one of them would be a superuser's mistake",
            cures.give_away(schema["name"]) + " From then on migrate as a member of reproq_owner",
        )
    return ok("owner", f"the functions belong to {schema['owner']}, no superuser")
