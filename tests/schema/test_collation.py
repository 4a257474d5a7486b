"""Databases whose collation is not that of bytes."""

from __future__ import annotations

import re
import uuid

import psycopg
from psycopg.conninfo import make_conninfo

from tests.support.database import SQL_FOLDER, drop_database

CANONICAL_JSON = SQL_FOLDER / "functions" / "internal" / "json" / "_reproq_canonical_json.sql"


def test_canonical_json_does_not_depend_on_the_collation_of_the_database(server_dsn: str) -> None:
    """Keys are sorted by code point, as Python does: the hash of a spec is the same everywhere. The embedded server has
    only collations of bytes: there the text of the function has to do."""
    assert set(re.findall(r"order by e\.key.*?(?=\))", CANONICAL_JSON.read_text())) == {'order by e.key collate "C"'}
    with psycopg.connect(server_dsn, autocommit=True) as admin:
        found = admin.execute("select exists (select from pg_collation where collprovider = 'i')").fetchone()
        if found != (True,) or admin.info.server_version < 150000:
            return
        name = f"reproq_{uuid.uuid4().hex[:12]}"
        locale = "locale_provider icu icu_locale 'en-US' locale 'C'"
        try:
            admin.execute(f"create database {name} template template0 encoding 'UTF8' {locale}".encode())
        except psycopg.errors.FeatureNotSupported:
            return
    try:
        with psycopg.connect(make_conninfo(server_dsn, dbname=name)) as connection:
            assert connection.execute("select 'B' < 'a'").fetchone() == (False,)
            connection.execute(CANONICAL_JSON.read_bytes())
            value = '{"B": 1, "a": {"b": 1, "C": 2}, "A": 3, "ä": 5, "z": 4}'
            found = connection.execute("select _reproq_canonical_json(%s)", [value]).fetchone()
        assert found == ('{"A":3,"B":1,"a":{"C":2,"b":1},"z":4,"ä":5}',)
    finally:
        drop_database(server_dsn, name)
