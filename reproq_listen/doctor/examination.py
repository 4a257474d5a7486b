"""All checks, in order and with time limits. A check that cannot be made is a finding and does not stop the others."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from reproq_listen.db import remedies
from reproq_listen.db.catalog_queries import Examined, Record, as_it_is
from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database
from reproq_listen.db.dsn import as_owner, conninfo, describe
from reproq_listen.db.errors import CallError
from reproq_listen.doctor import access, listening, schema, server, shipped
from reproq_listen.doctor.executor import executor
from reproq_listen.doctor.findings import Finding, Level, error, ok
from reproq_listen.logs.event_log import Log

OnFinding = Callable[[Finding], None]


class DoctorSettings(Struct, frozen=True, kw_only=True):
    """What to examine: settings of a worker, DSNs as given. `program` is our name in remedies."""

    dsn: str
    listen_dsn: str | None
    schema: str | None
    python_bin: str
    executor_module: str
    allowed_task_modules: tuple[str, ...]
    program: str

    def for_owner(self) -> DoctorSettings:
        """The same settings with OWNER as the user: for remedies that another role must run."""
        return replace(self, dsn=as_owner(self.dsn))

    def command(self, name: str) -> str:
        """A command of ours for this database, without the password."""
        where = f" --schema {shlex.quote(self.schema)}" if self.schema else ""
        return f"{self.program} {name} --dsn {shlex.quote(describe(self.dsn))}{where}"

    def run_files(self, schema: str, files: Sequence[Path]) -> str:
        """A psql command that runs files of ours in the schema."""
        words = ["psql", describe(self.dsn), "-v", "ON_ERROR_STOP=1", "-c", remedies.search_in(schema)]
        return shlex.join([*words, *(word for file in files for word in ("-f", str(file)))])


async def examine(settings: DoctorSettings, report: OnFinding, log: Log) -> None:
    """Run all checks and report each finding at once."""
    database = Database(Connection(conninfo(settings.dsn), "doctor", log, as_it_is), settings.schema)
    examined = Examined(database)
    try:
        await _examine_database(settings, examined, report)
    finally:
        await database.close()
    for finding in await executor(settings.python_bin, settings.executor_module, settings.allowed_task_modules):
        report(finding)


async def _examine_database(settings: DoctorSettings, examined: Examined, report: OnFinding) -> None:
    where = describe(settings.dsn)
    try:
        asked = datetime.now(UTC)
        facts = await examined.server()
        answered = datetime.now(UTC)
    except CallError as problem:
        remedy = "check --dsn (or DATABASE_URL), the password and pg_hba.conf, and whether the server runs"
        report(error("connection", f"{where}: {problem}", "nothing works without the database", remedy))
        return
    report(ok("connection", f"{where}, as {facts['role']}"))
    report(server.version(facts))
    report(server.encoding(facts))
    report(server.writable(facts))
    report(server.durability(facts))
    report(server.notify(facts))
    report(server.array_nulls(facts))
    report(server.clock(facts, asked, answered))
    report(server.notification_queue(facts))
    await _guarded("sessions", report, lambda: _sessions(examined, facts["role"], report))
    listen_dsn = settings.listen_dsn
    target = conninfo(settings.dsn) if listen_dsn is None else conninfo(listen_dsn, "--listen-dsn")
    report(await listening.notifications_arrive(target, examined.send, is_for_listen=listen_dsn is not None))
    await _guarded("schema", report, lambda: _schema(settings, examined, facts, report))


async def _sessions(examined: Examined, role: str, report: OnFinding) -> None:
    may_see = await examined.may_see_sessions()
    report(server.oldest_transaction(await examined.oldest_transaction(), role, may_see=may_see))
    report(server.prepared_transaction(await examined.oldest_prepared()))


async def _schema(settings: DoctorSettings, examined: Examined, facts: Record, report: OnFinding) -> None:
    found = await examined.schema(settings.schema)
    if found is None:
        report(schema.missing(await examined.other_schemas(), settings.command("migrate")))
        return
    owner = settings if found["may_as_owner"] else settings.for_owner()
    migrate = owner.command("migrate")
    name = found["name"]
    for finding in access.schema_is_closed(name, await examined.creators(name)):
        report(finding)
    report(access.owner(found))
    functions = await examined.functions(name)
    relations = await examined.relations(name, shipped.TABLES)
    await _guarded("contract", report, lambda: _contract(examined, migrate, report))
    pending = await asyncio.to_thread(schema.pending, settings.dsn, settings.schema, migrate)
    report(pending)
    is_pending = pending.level is not Level.OK
    rights = shipped.rights()
    groups = await examined.groups(sorted(rights))
    grants = owner.command("grants")

    def make(names: Collection[str]) -> str:
        if is_pending:
            return migrate
        again = owner.run_files(name, shipped.files(names))
        return f"{again} && {grants}" if any(group["exists"] for group in groups) else again

    for finding in (
        *schema.drift(shipped.functions(), functions, make),
        *schema.triggers(shipped.triggers(), await examined.triggers(name), name, make),
        schema.views(shipped.views(), relations, make),
        *schema.indexes(shipped.indexes(), relations, name, migrate if is_pending else None),
        schema.row_security(relations, name),
        *schema.autovacuum(facts, relations, await examined.vacuum(name), name),
    ):
        report(finding)
    for finding in access.grants(facts["role"], rights, groups, functions, relations, grants):
        report(finding)
    report(access.public_rights(functions, grants))


async def _contract(examined: Examined, migrate: str, report: OnFinding) -> None:
    report(schema.contract(await examined.contract(), migrate))


async def _guarded(check: str, report: OnFinding, work: Callable[[], Awaitable[None]]) -> None:
    """Run checks; a refusal or a lost connection becomes a finding."""
    try:
        await work()
    except CallError as problem:
        report(
            error(
                check,
                f"this could not be checked: {problem}",
                "its result is unknown",
                "run doctor again as a role with the right to see it (pg_monitor, or the owner of the schema)",
            )
        )
