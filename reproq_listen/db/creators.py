"""Roles that can run code as the owner of our functions, because they may create objects in the install schema.

PostgreSQL takes the overload whose types fit best, in every schema of the search path: `array_fill(jsonb, integer[])`
in the install schema wins over the built-in `array_fill(anyelement, integer[])`, though pg_catalog comes first.
Operators likewise. So only the owner may be able to create objects there. The other way would be a `pg_catalog.` before
the names at several hundred calls and operators.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL

from reproq_listen.db import dsn as dsns

CREATORS = SQL("""
    with install as (
        select n.nspname, n.nspacl, n.nspowner, p.proowner as owner
        from pg_namespace n
        join pg_proc p on p.pronamespace = n.oid and p.proname = 'reproq_contract'
        where n.nspname = coalesce(%s::text, current_schema())
    ), granted as (
        select distinct i.nspname, i.owner, a.grantee,
               case when a.grantee = to_regrole('pg_database_owner')::oid then d.datdba else a.grantee end as holder
        from install i
        cross join lateral aclexplode(coalesce(i.nspacl, acldefault('n', i.nspowner))) a
        join pg_database d on d.datname = current_database()
        where a.privilege_type = 'CREATE'
    )
    select case g.holder when 0 then 'PUBLIC' else g.holder::regrole::text end as role,
           format('revoke create on schema %%I from %%s;', g.nspname,
                  case g.grantee when 0 then 'public' else g.grantee::regrole::text end) as remedy
    from granted g
    left join pg_roles r on r.oid = g.holder
    where g.holder = 0 or not r.rolsuper and not pg_has_role(g.holder, g.owner, 'member')
    order by 1
""")
WHY = "a function or operator of its own that fits a call of ours better would run as our owner"


class Creator(NamedTuple):
    """A role other than the owner that may create objects in the schema, and the statement that ends that."""

    role: str
    remedy: str


def find_creators(dsn: str, schema: str | None, setting: str) -> list[Creator]:
    """All such roles of a database; none where the schema does not exist."""
    connection: psycopg.Connection[Any]
    with psycopg.connect(dsns.conninfo(dsn, setting, schema=schema), autocommit=True, connect_timeout=10) as connection:
        return [Creator(*row) for row in connection.execute(CREATORS, [schema])]
