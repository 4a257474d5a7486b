"""A schema as plain text, one line of definition for each object, so that two schemas can be compared."""

from __future__ import annotations

import psycopg

# Each query gives (object, definition); %(schema)s is the schema. Bookkeeping of yoyo and of adoption is no part of it.
_TABLES = """
    from pg_class c
    where c.relnamespace = %(schema)s::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
      and c.relname !~ '^(_yoyo_|yoyo_lock|_reproq_adopted)'
"""
_QUERIES = {
    "relation": f"""
        select c.relname, concat_ws(' | ', c.relkind, c.reloptions::text, c.relacl::text,
            c.relowner = (select oid from pg_roles where rolname = current_user), obj_description(c.oid, 'pg_class'),
            case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end)
        {_TABLES}""",
    "column": f"""
        select t.relname || '.' || a.attname, concat_ws(' | ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl::text,
            col_description(a.attrelid, a.attnum))
        from (select c.oid, c.relname {_TABLES}) t
        join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum""",
    "constraint": f"""
        select t.relname || '.' || k.conname,
               concat_ws(' | ', pg_get_constraintdef(k.oid), k.convalidated, obj_description(k.oid, 'pg_constraint'))
        from (select c.oid, c.relname {_TABLES}) t
        join pg_constraint k on k.conrelid = t.oid and k.contype in ('c', 'f', 'p', 'u', 'x')""",
    "index": f"""
        select x.relname, concat_ws(' | ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisready)
        from (select c.oid, c.relname {_TABLES}) t
        join pg_index i on i.indrelid = t.oid join pg_class x on x.oid = i.indexrelid""",
    "trigger": f"""
        select t.relname || '.' || g.tgname,
               concat_ws(' | ', pg_get_triggerdef(g.oid), g.tgenabled, obj_description(g.oid, 'pg_trigger'))
        from (select c.oid, c.relname {_TABLES}) t
        join pg_trigger g on g.tgrelid = t.oid and not g.tgisinternal""",
    "function": """
        select p.oid::regprocedure::text, concat_ws(' | ', pg_get_functiondef(p.oid),
            (select array_agg(acl::text order by acl::text) from unnest(p.proacl) acl)::text,
            p.proowner = (select oid from pg_roles where rolname = current_user), obj_description(p.oid, 'pg_proc'))
        from pg_proc p where p.pronamespace = %(schema)s::regnamespace and p.prokind in ('f', 'p')""",
}


def read(connection: psycopg.Connection, schema: str = "public") -> dict[str, str]:
    """Every object of the schema: kind and name, and all that defines it, the schema's own name taken out."""
    quoted = _quoted(connection, schema)
    found: dict[str, str] = {}
    for kind, query in _QUERIES.items():
        for name, definition in connection.execute(query.encode(), {"schema": quoted}):
            key = f"{kind} {name}".replace(f"{quoted}.", "")
            found[key] = definition.replace(f"{quoted}.", "").replace(f"'{schema}'", "SCHEMA")
    return found


def column_order(connection: psycopg.Connection, schema: str = "public") -> list[str]:
    """The columns of all tables in the order in which `select *` gives them."""
    query = f"""
        select t.relname || '.' || a.attname from (select c.oid, c.relname {_TABLES}) t
        join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
        order by t.relname, a.attnum"""
    quoted = _quoted(connection, schema)
    return [row[0] for row in connection.execute(query.encode(), {"schema": quoted})]


def _quoted(connection: psycopg.Connection, schema: str) -> str:
    row = connection.execute("select quote_ident(%s)", [schema]).fetchone()
    assert row is not None
    return str(row[0])


def difference(left: dict[str, str], right: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """What the two do not share: object, its definition on the left, its definition on the right."""
    return {
        name: (left.get(name), right.get(name))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    }
