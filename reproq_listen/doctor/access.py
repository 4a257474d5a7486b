"""Checks of rights: this role can do its work, and no role can do more than it should."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reproq_listen.db import remedies
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
    """The role has the rights of the groups it is a member of, and those of a worker."""
    present = {row["name"] for row in (*functions, *relations)}  # other checks report what is missing
    rights = {name: Rights(allowed.functions & present, allowed.views & present) for name, allowed in rights.items()}
    executable = {row["name"] for row in functions if row["may_execute"]}
    readable = {row["name"] for row in relations if row["may_select"]}
    findings = []
    for group in groups:
        if not group["is_member"]:
            continue
        allowed = rights[group["name"]]
        lacking = sorted((allowed.functions - executable) | (allowed.views - readable))
        if lacking:
            remedy = grants_command if group["inherits"] else remedies.inherit(group["name"], role)
            what = f"{role} is a member of {group['name']} but may not use: {named(lacking)}"
            findings.append(error("grants", what, "the database refuses calls to them", remedy))
    if findings:
        return findings
    able = sorted(
        name for name, allowed in rights.items() if allowed.functions <= executable and allowed.views <= readable
    )
    has = f"{role} has the rights of {', '.join(able)}" if able else f"{role} has the rights of no reproq group"
    if _WORKER in able:
        return [ok("grants", has)]
    lacking = sorted((rights[_WORKER].functions - executable) | (rights[_WORKER].views - readable))
    return [
        error(
            "grants",
            f"{has}; of the rights of {_WORKER} it lacks: {named(lacking)}",
            "a worker cannot start as this role",
            f"{grants_command}; then: {remedies.join(_WORKER, role)}",
        )
    ]


def public_rights(functions: Collection[Record], grants_command: str) -> Finding:
    """PUBLIC may not call our functions."""
    open_to_all = sorted(row["name"] for row in functions if row["public_may_execute"])
    if open_to_all:
        return error(
            "public_rights",
            f"PUBLIC may execute {named(open_to_all)}",
            "every role that can connect may call them, and they run with the rights of their owner",
            grants_command,
        )
    return ok("public_rights", "PUBLIC may execute none of the functions")


def schema_is_closed(schema: str, creators: Collection[Record]) -> list[Finding]:
    """Only the owner may create objects in the schema where our functions look up names."""
    found = [
        error("schema_is_closed", f"{row['role']} may create objects in schema {schema}", WHY, row["remedy"])
        for row in creators
    ]
    return found or [ok("schema_is_closed", f"only the owner may create objects in schema {schema}")]


def owner(schema: Record) -> Finding:
    """The functions run with the rights of their owner, who should not be a superuser."""
    if schema["owner_is_superuser"]:
        return warning(
            "owner",
            f"the functions belong to {schema['owner']}, a superuser",
            "a mistake in one of them would run with the rights of a superuser",
            remedies.give_away(schema["name"]) + " From then on run migrate as a member of reproq_owner",
        )
    return ok("owner", f"the functions belong to {schema['owner']}, not a superuser")
