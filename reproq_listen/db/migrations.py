"""Brings a schema up to date with the steps in `migrations/`, through yoyo and inside yoyo's lock.

`yoyo apply` on the same database does the same; both keep their record in yoyo's tables in the install schema.
"""

from __future__ import annotations

import getpass
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import psycopg
from msgspec import Struct
from psycopg import sql
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.exceptions import BadMigration, LockTimeout
from yoyo.migrations import default_migration_table

from reproq_listen.db.connection import connect_blocking
from reproq_listen.db.database import NEEDED_ENCODING, wrong_encoding
from reproq_listen.db.dsn import conninfo
from reproq_listen.errors import ReproqError, SettingError

OLDEST_SERVER: Final = 140000
LOCK_SECONDS: Final = 10
_TARGET_STATE: Final = """
    select pg_is_in_recovery(), current_schema(), (select n.oid from pg_namespace n where n.nspname = %s)
"""
# Needed before the first migration only: later ones may do with owning the existing objects.
_NO_CREATE_RIGHT: Final = """
    select quote_ident(n.nspname),
           case when has_schema_privilege(n.oid, 'usage') then 'create' else 'usage, create' end,
           quote_ident(current_user)
    from pg_namespace n
    where n.nspname = coalesce(%s, current_schema()) and not has_schema_privilege(n.oid, 'create')
      and not exists (select from pg_class c where c.relnamespace = n.oid and c.relname = %s)
"""


class NotOwnerError(ReproqError):
    """This role may not read or write what belongs to the owner of the schema."""


class StepReport(Struct, frozen=True):
    """The outcome of one step; of a dry run, the outcome it would have."""

    step: str
    outcome: Literal["applied", "present", "pending", "rolled back"]


OnStep = Callable[[StepReport], None]


def migrate(
    dsn: str, *, schema: str | None = None, dry_run: bool = False, report: OnStep, setting: str = "--dsn"
) -> list[StepReport]:
    """Apply the missing steps in order; call `report` as each one ends, and return all reports.

    A missing `schema` is created; without a name it is the first schema of the session's search path. A dry run writes
    nothing. Raises ReproqError with the step, the reason and the remedy; the steps before a failed one stay applied,
    the failed one leaves no trace.
    """
    target = _Target(conninfo(dsn, setting, schema=schema))
    steps = _read_steps()
    _check_database(target, schema, setting, create=not dry_run)
    present = _applied_ids(target, setting)  # refuses who is not the owner at once; yoyo's lock tries for seconds
    if dry_run:
        reports = [StepReport(step.id, "present" if step.id in present else "pending") for step in steps]
        for item in reports:
            report(item)
        return reports
    with _locked(target) as backend:
        missing = {step.id for step in backend.to_apply(steps)}
        reports = [_apply(backend, step, report, present=step.id not in missing) for step in steps]
        for hook in steps.post_apply:  # what is not released yet: nothing in a released wheel
            with _naming_step(hook.id):
                backend.apply_one(hook, mark=False)
        return reports


def roll_back(
    dsn: str, *, schema: str | None = None, steps: int = 1, report: OnStep, setting: str = "--dsn"
) -> list[StepReport]:
    """Undo the last `steps` steps, the latest first. A step drops only what it created.

    Raises ReproqError as `migrate` does; a step that created tables refuses while they hold rows.
    """
    target = _Target(conninfo(dsn, setting, schema=schema))
    _check_database(target, schema, setting, create=False)
    reports = []
    with _locked(target) as backend:
        for step in backend.to_rollback(_read_steps())[:steps]:
            with _naming_step(step.id):
                backend.rollback_one(step)
            reports.append(StepReport(step.id, "rolled back"))
            report(reports[-1])
    return reports


def database_folder() -> Path:
    """The folder that holds `sql/` and `migrations/`: inside the package when installed, else the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_schema"
    return installed if installed.is_dir() else package.parent


class _Target(NamedTuple):
    """Stands in for yoyo's parsed URL: yoyo passes it to `connect` and reads `database`."""

    conninfo: str
    database: str = ""


class _Backend(PostgresqlPsycopgBackend):
    """yoyo's PostgreSQL, reached by conninfo: its URLs know neither several hosts nor `service`."""

    def connect(self, target: _Target) -> psycopg.Connection[Any]:
        return psycopg.connect(target.conninfo, autocommit=True)

    def get_log_data(self, migration: Any = None, operation: str = "apply") -> dict[str, Any]:  # noqa: ANN401
        # yoyo's own fails for a uid without a name, and asks the network for this host's full name.
        data: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": _user_name(),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }
        return data


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        return f"uid {os.getuid()}"


def _read_steps() -> Any:  # noqa: ANN401 - yoyo has no types
    folder = database_folder() / "migrations"
    steps = read_migrations(str(folder))
    if not steps:
        raise ReproqError(f"no migrations in {folder}: the installation is damaged; reinstall reproq-listen")
    return steps


def _check_database(target: _Target, schema: str | None, setting: str, *, create: bool) -> None:
    """Refuse a database that cannot be migrated, before the first change; create the schema if it was named."""
    with connect_blocking(target.conninfo, setting) as connection:
        if connection.info.server_version < OLDEST_SERVER:
            version = connection.info.parameter_status("server_version")
            raise ReproqError(f"{setting}: the server is PostgreSQL {version}; reproq-listen needs 14 or newer")
        encoding = connection.info.parameter_status("server_encoding") or NEEDED_ENCODING
        if encoding != NEEDED_ENCODING:
            raise SettingError(f"{setting}: {wrong_encoding(encoding)}")
        standby, current, named = connection.execute(_TARGET_STATE, [schema]).fetchone() or (None, None, None)
        if standby:
            raise ReproqError(
                f"{setting}: the server is a read-only standby; name the primary, "
                "or name all hosts and add target_session_attrs=read-write"
            )
        if schema is not None and named is None:
            if create:
                # Another migration may create it at the same moment: unique violation, in spite of `if not exists`.
                with _naming_step(f"create schema {schema}"), suppress(psycopg.errors.UniqueViolation):
                    connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
        elif schema is None and current is None:  # another migration may have created a named one just now
            raise SettingError(f"{setting}: no schema of the search path exists; name one with --schema")
        refused = connection.execute(_NO_CREATE_RIGHT, [schema, default_migration_table]).fetchone()
        if refused is not None:
            where, rights, role = refused
            raise NotOwnerError(
                f"no right to create in schema {where}; grant {rights} on schema {where} to {role}, or connect as its "
                "owner"
            )


def _applied_ids(target: _Target, setting: str) -> set[str]:
    """The steps in yoyo's record, read without creating that record."""
    with connect_blocking(target.conninfo, setting) as connection:
        table = sql.Identifier(default_migration_table)
        row = connection.execute("select to_regclass(%s)", [table.as_string(connection)]).fetchone()
        if row is None or row[0] is None:
            return set()
        try:
            return {row[0] for row in connection.execute(sql.SQL("select migration_id from {}").format(table))}
        except psycopg.errors.InsufficientPrivilege as error:
            raise NotOwnerError(
                f"which steps are applied cannot be read: {error.diag.message_primary}; {_remedy(error)}"
            ) from error


@contextmanager
def _locked(target: _Target) -> Iterator[_Backend]:
    """yoyo's backend, holding yoyo's lock."""
    with _naming_step("yoyo's tables"), _Backend(target, default_migration_table) as backend:
        backend.init_database()
        try:
            with backend.lock(timeout=LOCK_SECONDS):
                yield backend
        except LockTimeout as error:
            raise ReproqError(
                f"another migration holds the lock: {error}. If none runs any more, a killed one left the lock "
                "behind; remove it with: yoyo break-lock --no-config-file -d postgresql+psycopg://USER@HOST/DBNAME"
            ) from error


def _apply(backend: _Backend, step: Any, report: OnStep, *, present: bool) -> StepReport:  # noqa: ANN401
    if not present:
        with _naming_step(step.id):
            backend.apply_one(step)
    result = StepReport(step.id, "present" if present else "applied")
    report(result)
    return result


@contextmanager
def _naming_step(step: str) -> Iterator[None]:
    """Turn an error of the database or of yoyo into one that names the step."""
    try:
        yield
    except BadMigration as error:
        raise ReproqError(f"step {step} cannot be read: {error}; reinstall reproq-listen") from error
    except psycopg.Error as error:
        diag = error.diag
        # The detail of a violated constraint is the whole row, payload included.
        detail = None if isinstance(error, psycopg.IntegrityError) else diag.message_detail
        parts = [diag.message_primary or str(error).strip(), detail, diag.message_hint, _remedy(error)]
        text = "; ".join(part for part in parts if part)
        raise ReproqError(f"step {step} failed and left no trace: {text} [{error.sqlstate}]") from error


def _remedy(error: psycopg.Error) -> str | None:
    match error:
        case psycopg.errors.LockNotAvailable():
            return "a long transaction holds the table; end it or wait for its end, and run this again"
        case psycopg.errors.InsufficientPrivilege():
            return "connect as the owner of the schema's tables, or as a role that may create in the schema"
        case _:
            return None
