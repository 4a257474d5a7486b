"""What `doctor` asks of a server: its settings, its catalog, its sessions. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from psycopg import AsyncConnection
from psycopg.sql import SQL

from reproq_listen.db.contract import Served
from reproq_listen.db.creators import CREATORS
from reproq_listen.db.database import Database
from reproq_listen.db.database import Record as Record

_SERVER = SQL("""
    select current_setting('server_version_num')::integer as version_number,
           current_setting('server_version') as version,
           current_setting('server_encoding') as encoding,
           pg_is_in_recovery() as is_standby,
           current_setting('default_transaction_read_only')::boolean as is_read_only,
           current_setting('synchronous_commit') as synchronous_commit,
           current_setting('autovacuum')::boolean as autovacuum,
           coalesce(current_setting('reproq.notify', true), '') as notify,
           current_setting('array_nulls')::boolean as array_nulls,
           pg_notification_queue_usage() as notification_usage,
           current_user::text as role,
           current_database()::text as database,
           clock_timestamp() as now
""")
_SCHEMA = SQL("""
    select n.nspname::text as name,
           o.rolname::text as owner, o.rolsuper as owner_is_superuser, pg_has_role(o.oid, 'usage') as may_as_owner
    from pg_proc p
    join pg_namespace n on n.oid = p.pronamespace
    join pg_roles o on o.oid = p.proowner
    where p.oid = to_regproc(concat(quote_ident(%s::text) || '.', 'reproq_contract'))
""")
_OTHER_SCHEMAS = SQL("""
    select n.nspname::text as name
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.proname = 'reproq_contract'
    order by 1
""")
_FUNCTIONS = SQL("""
    select p.proname::text as name, p.prosrc as body, p.prosecdef as is_definer,
           exists (select from unnest(p.proconfig) as c (setting)
                   where c.setting = format('search_path=%%I, pg_temp', n.nspname)) as has_path,
           has_function_privilege(p.oid, 'execute') as may_execute,
           has_function_privilege('public', p.oid, 'execute') as public_may_execute
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = %s::text and p.proname ~ '^_?reproq_' and p.prokind = 'f'
""")
_RELATIONS = SQL("""
    select c.relname::text as name, c.relkind::text as kind, coalesce(i.indisvalid, true) as is_valid,
           has_table_privilege(c.oid, 'select') as may_select, c.reloptions as options,
           c.relforcerowsecurity as is_row_security_forced
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    left join pg_index i on i.indexrelid = c.oid
    where n.nspname = %s::text
      and (c.relkind in ('r', 'v') or i.indrelid in (
          select t.oid from pg_class t where t.relnamespace = n.oid and t.relname = any (%s::text[])))
      and c.relkind in ('r', 'v', 'i')
""")
_TRIGGERS = SQL("""
    select t.tgname::text as name, c.relname::text as on_table, t.tgenabled in ('O', 'A') as is_enabled
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s::text and not t.tgisinternal
""")
_GROUPS = SQL("""
    select g.name, to_regrole(g.name) is not null as exists,
           coalesce(pg_has_role(to_regrole(g.name)::oid, 'member'), false) as is_member,
           coalesce(pg_has_role(to_regrole(g.name)::oid, 'usage'), false) as inherits
    from unnest(%s::text[]) as g (name)
""")
_OLDEST = SQL("""
    select a.pid, coalesce(a.usename, '')::text as role, coalesce(a.application_name, '') as application,
           coalesce(a.state, 'hidden') as state,
           extract(epoch from clock_timestamp() - a.xact_start)::double precision as seconds,
           age(a.backend_xmin) as transactions_behind
    from pg_stat_activity a
    where a.pid <> pg_backend_pid() and a.backend_type in ('client backend', 'walsender')
      and (a.xact_start is not null or a.backend_xmin is not null)
    order by a.xact_start nulls last, age(a.backend_xmin) desc nulls last
    limit 1
""")
_PREPARED = SQL("""
    select p.gid, p.owner::text as role, extract(epoch from clock_timestamp() - p.prepared)::double precision as seconds
    from pg_prepared_xacts p
    where p.database = current_database()
    order by p.prepared
    limit 1
""")
_MAY_SEE_SESSIONS = SQL("select pg_has_role('pg_read_all_stats', 'usage') as answer")
_VACUUM = SQL("""
    select s.n_live_tup as live, s.n_dead_tup as dead, s.last_autovacuum, s.last_vacuum
    from pg_stat_user_tables s
    where s.schemaname = %s::text and s.relname = 'task_runs'
""")
_SILENCE = SQL("""
    select w.silent
    from {schema}reproq_live_workers w
    where case when %(worker_id)s::text is null then w.hostname = %(hostname)s::text
               else w.worker_id = %(worker_id)s::text end
    order by w.last_seen_at desc
    limit 1
""")
# Any channel shows whether notifications arrive; workers ignore what they do not know.
_NOTIFY = SQL("select pg_notify('reproq_control', %s::text)::text")
_LISTEN = SQL("listen reproq_control")


class Examined:
    """The queries of `doctor`. Every method raises CallError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def server(self) -> Record:
        """Version, role of the server and settings, and its clock."""
        return (await self._database.records(_SERVER))[0]

    async def schema(self, name: str | None) -> Record | None:
        """The schema of reproq's functions, found as a worker finds it; None if there is none."""
        found = await self._database.records(_SCHEMA, (name,))
        return found[0] if found else None

    async def creators(self, schema: str) -> list[Record]:
        """Other roles than the owner that may create objects in the schema: role, remedy."""
        return await self._database.records(CREATORS, (schema,))

    async def other_schemas(self) -> list[str]:
        """All schemas that hold reproq's functions."""
        return [row["name"] for row in await self._database.records(_OTHER_SCHEMAS)]

    async def contract(self) -> Served:
        """The interface numbers that the schema serves."""
        return await self._database.contract()

    async def functions(self, schema: str) -> list[Record]:
        """Our functions: name, body, is_definer, has_path (its own search path, fixed to the schema), may_execute,
        public_may_execute."""
        return await self._database.records(_FUNCTIONS, (schema,))

    async def relations(self, schema: str, tables: Sequence[str]) -> list[Record]:
        """Tables and views of the schema and the indexes of `tables`: name, kind, is_valid, may_select, options."""
        return await self._database.records(_RELATIONS, (schema, list(tables)))

    async def triggers(self, schema: str) -> list[Record]:
        """Triggers on tables of the schema: name, on_table, is_enabled."""
        return await self._database.records(_TRIGGERS, (schema,))

    async def groups(self, names: Sequence[str]) -> list[Record]:
        """Membership of the current role in each group: exists, is_member, inherits."""
        return await self._database.records(_GROUPS, (list(names),))

    async def oldest_transaction(self) -> Record | None:
        """The session with the oldest open transaction, of those that this role may see."""
        found = await self._database.records(_OLDEST)
        return found[0] if found else None

    async def oldest_prepared(self) -> Record | None:
        """The oldest prepared transaction of this database."""
        found = await self._database.records(_PREPARED)
        return found[0] if found else None

    async def may_see_sessions(self) -> bool:
        """Whether this role may see the sessions of other roles."""
        return bool((await self._database.records(_MAY_SEE_SESSIONS))[0]["answer"])

    async def vacuum(self, schema: str) -> Record | None:
        """Live and dead rows of task_runs, by the server's statistics."""
        found = await self._database.records(_VACUUM, (schema,))
        return found[0] if found else None

    async def silence(self, worker_id: str | None, hostname: str) -> timedelta | None:
        """How long the worker, or the latest of this host, has been silent; None: five minutes or more."""
        found = await self._database.records(_SILENCE, {"worker_id": worker_id, "hostname": hostname})
        silent: timedelta | None = found[0]["silent"] if found else None
        return silent

    async def send(self, text: str) -> None:
        """NOTIFY where `listen` listens."""
        await self._database.records(_NOTIFY, (text,))


async def as_it_is(connection: AsyncConnection) -> None:
    """Prepare no session: a read-only server is a finding, not an error."""


async def listen(connection: AsyncConnection) -> None:
    """LISTEN where `Examined.send` notifies."""
    await connection.execute(_LISTEN)
