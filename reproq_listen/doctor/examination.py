"""The whole examination: every check in order, each bounded; one that cannot be made is a finding, not an end."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from reproq_listen.db import dsn as dsns
from reproq_listen.db import remedies as cures
from reproq_listen.db.catalog_queries import Examined, Record, as_it_is
from reproq_listen.db.connection import Connection
from reproq_listen.db.errors import CallError
from reproq_listen.db.worker_queries import Database
from reproq_listen.doctor import access, listening, schema, server
from reproq_listen.doctor import shipped as package
from reproq_listen.doctor.executor import executor
from reproq_listen.doctor.findings import Finding, Level, error, ok
from reproq_listen.logs.event_log import Log

Report = Callable[[Finding], None]


class Questions(Struct, frozen=True, kw_only=True):
    """What to examine: the same settings that a worker gets. DSNs as given; `program` is how cures call us."""

    dsn: str
    listen_dsn: str | None
    schema: str | None
    python_bin: str
    executor_module: str
    allowed_task_modules: tuple[str, ...]
    program: str

    def for_owner(self) -> Questions:
        """The same of OWNER: for cures that are another role's to run."""
        return replace(self, dsn=dsns.as_owner(self.dsn))

    def command(self, name: str) -> str:
        """A command of ours on this database, without its password."""
        where = f" --schema {shlex.quote(self.schema)}" if self.schema else ""
        return f"{self.program} {name} --dsn {shlex.quote(dsns.describe(self.dsn))}{where}"

    def run_files(self, schema: str, files: Sequence[Path]) -> str:
        """A psql command that runs files of ours in the schema."""
        words = ["psql", dsns.describe(self.dsn), "-v", "ON_ERROR_STOP=1", "-c", cures.search_in(schema)]
        return shlex.join([*words, *(word for file in files for word in ("-f", str(file)))])


async def examine(questions: Questions, report: Report, log: Log) -> None:
    """Make every check and report each finding as it is found."""
    database = Database(Connection(dsns.conninfo(questions.dsn), "doctor", log, as_it_is), questions.schema)
    examined = Examined(database)
    try:
        await _examine_database(questions, examined, report)
    finally:
        await database.close()
    for finding in await executor(questions.python_bin, questions.executor_module, questions.allowed_task_modules):
        report(finding)


async def _examine_database(questions: Questions, examined: Examined, report: Report) -> None:
    where = dsns.describe(questions.dsn)
    try:
        asked = datetime.now(UTC)
        facts = await examined.server()
        answered = datetime.now(UTC)
    except CallError as problem:
        cure = "check --dsn (or DATABASE_URL), the password, pg_hba.conf, and that the server runs"
        report(error("connection", f"{where}: {problem}", "nothing works without the database", cure))
        return
    report(ok("connection", f"{where}, as {facts['role']}"))
    report(server.version(facts))
    report(server.writable(facts))
    report(server.durability(facts))
    report(server.bell(facts))
    report(server.clock(facts, asked, answered))
    report(server.notification_queue(facts))
    await _guarded("sessions", report, lambda: _sessions(examined, facts["role"], report))
    listen_dsn = questions.listen_dsn
    conninfo = dsns.conninfo(questions.dsn) if listen_dsn is None else dsns.conninfo(listen_dsn, "--listen-dsn")
    report(await listening.is_enabled_for(conninfo, examined.send))
    await _guarded("schema", report, lambda: _schema(questions, examined, facts, report))


async def _sessions(examined: Examined, role: str, report: Report) -> None:
    may_see = await examined.may_see_sessions()
    report(server.oldest_transaction(await examined.oldest_transaction(), role, may_see=may_see))
    report(server.prepared_transaction(await examined.oldest_prepared()))


async def _schema(questions: Questions, examined: Examined, facts: Record, report: Report) -> None:
    found = await examined.schema(questions.schema)
    if found is None:
        report(schema.missing(await examined.other_schemas(), questions.command("migrate")))
        return
    curing = questions if found["may_as_owner"] else questions.for_owner()
    migrate = curing.command("migrate")
    name = found["name"]
    for finding in access.schema_is_closed(name, await examined.creators(name)):
        report(finding)
    report(access.owner(found))
    functions = await examined.functions(name)
    relations = await examined.relations(name, package.TABLES)
    await _guarded("contract", report, lambda: _contract(examined, migrate, report))
    pending = await asyncio.to_thread(schema.pending, questions.dsn, questions.schema, migrate)
    report(pending)
    is_pending = pending.level is not Level.OK
    rights = package.rights()
    groups = await examined.groups(sorted(rights))
    grants = curing.command("grants")

    def make(names: Collection[str]) -> str:
        if is_pending:
            return migrate
        again = curing.run_files(name, package.files(names))
        return f"{again} && {grants}" if any(group["exists"] for group in groups) else again

    for finding in (
        *schema.drift(package.functions(), functions, make),
        *schema.triggers(package.triggers(), await examined.triggers(name), name, make),
        schema.views(package.views(), relations, make),
        *schema.indexes(package.indexes(), relations, name, migrate if is_pending else None),
        *schema.autovacuum(facts, relations, await examined.vacuum(name), name),
    ):
        report(finding)
    for finding in access.grants(facts["role"], rights, groups, functions, relations, grants):
        report(finding)
    report(access.public_rights(functions, grants))


async def _contract(examined: Examined, migrate: str, report: Report) -> None:
    report(schema.contract(await examined.contract(), migrate))


async def _guarded(check: str, report: Report, work: Callable[[], Awaitable[None]]) -> None:
    """Make checks; a refusal or a lost connection becomes a finding."""
    try:
        await work()
    except CallError as problem:
        report(
            error(
                check,
                f"this could not be examined: {problem}",
                "what it would have said is not known",
                "run doctor again as a role that may (pg_monitor, or the owner of the schema)",
            )
        )
