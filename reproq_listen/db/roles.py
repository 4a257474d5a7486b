"""Runs sql/roles.sql and reports its changes: the roles by audience and their rights on our objects."""

from __future__ import annotations

from typing import Any

import psycopg
from msgspec import Struct
from psycopg.sql import SQL

from reproq_listen.db.connection import connect_blocking
from reproq_listen.db.dsn import conninfo
from reproq_listen.db.migrations import database_folder
from reproq_listen.errors import ContractError, ReproqError

_CREATE_DJANGO = SQL("""
    do $$ begin
        if to_regrole('reproq_django') is null then create role reproq_django nologin; end if;
    end $$
""")
_RIGHTS = SQL("""
    with roles as (
        select r.oid, r.rolname::text as name from pg_roles r
        where r.rolname in ('reproq_worker', 'reproq_producer', 'reproq_operator', 'reproq_observer', 'reproq_django')
        union all select 0, 'public'
    ), objects as (
        select 'function ' || p.oid::regprocedure as name, coalesce(p.proacl, acldefault('f', p.proowner)) as acl
        from pg_proc p
        where p.pronamespace = (select n.oid from pg_namespace n where n.nspname = current_schema())
          and p.proname ~ '^_?reproq_'
        union all
        select 'table ' || c.oid::regclass, c.relacl
        from pg_class c
        where c.relnamespace = (select n.oid from pg_namespace n where n.nspname = current_schema())
          and c.relkind in ('r', 'v')
        union all
        select format('table %s (%I)', c.oid::regclass, a.attname), a.attacl
        from pg_class c
        join pg_attribute a on a.attrelid = c.oid and a.attacl is not null
        where c.relnamespace = (select n.oid from pg_namespace n where n.nspname = current_schema())
        union all
        select format('schema %I', n.nspname), n.nspacl from pg_namespace n where n.nspname = current_schema()
    )
    select 'role ' || r.name from roles r where r.oid <> 0
    union
    select format('%s on %s: %s', lower(a.privilege_type), o.name, r.name)
    from objects o cross join lateral aclexplode(o.acl) a join roles r on r.oid = a.grantee
""")
_ADVICE = SQL("""
    select format('grant reproq_worker to %s;', 'NAME_OF_YOUR_LOGIN_ROLE'),
           'no role is a member of reproq_worker yet'
    where not exists (select from pg_auth_members m where m.roleid = to_regrole('reproq_worker'))
""")
_MISSING_OBJECT = ("42883", "42P01", "3F000")
_NO_RIGHT = "42501"


class Change(Struct, frozen=True):
    """One role or right that was added or removed."""

    change: str  # added | removed
    what: str


class Advice(Struct, frozen=True):
    """A statement for the administrator to run, and why."""

    advice: str
    why: str


def grant(
    dsn: str, *, schema: str | None, setting: str, django: bool, dry_run: bool
) -> tuple[list[Change], list[Advice]]:
    """Bring roles and rights to the state of sql/roles.sql, in one transaction; a dry run rolls it back.

    Returns what changed, or would change, and further advice. Raises ReproqError, which names the remedy.
    """
    script = (database_folder() / "sql" / "roles.sql").read_bytes()
    with connect_blocking(conninfo(dsn, setting, schema=schema), setting) as connection:
        try:
            with connection.transaction(force_rollback=dry_run):
                before = _texts(connection, _RIGHTS)
                if django:
                    connection.execute(_CREATE_DJANGO)
                connection.execute(script)
                after = _texts(connection, _RIGHTS)
                advice = [Advice(*row) for row in connection.execute(_ADVICE)]
        except psycopg.Error as error:
            raise _explained(error) from error
    changes = [Change("removed", what) for what in sorted(before - after)]
    return changes + [Change("added", what) for what in sorted(after - before)], advice


def _texts(connection: psycopg.Connection[Any], query: SQL) -> set[str]:
    return {row[0] for row in connection.execute(query)}


def _explained(error: psycopg.Error) -> ReproqError:
    message = error.diag.message_primary or str(error).strip()
    hint = error.diag.message_hint
    if error.sqlstate in _MISSING_OBJECT:
        return ContractError(
            f"the schema lacks an object that needs rights ({message}). Run this first: reproq-listen migrate"
        )
    if error.sqlstate == _NO_RIGHT and not hint:
        hint = "Connect as the owner of the schema's functions, the role that migrates."
    return ReproqError(f"nothing was granted: {message}. {hint or ''}".strip())
