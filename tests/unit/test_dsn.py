"""DSNs of every form are understood, and no error, log or description repeats a password."""

from __future__ import annotations

import psycopg.conninfo
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_listen.db import dsn
from reproq_listen.errors import SettingError

# Starts with what cannot be in any of our own words.
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(lambda text: f"Zq9{text}")


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("postgres://u@h/d", {"user": "u", "host": "h", "dbname": "d"}),
        (
            "postgresql://u:p%40%2Fw@h:5433/d",
            {"user": "u", "password": "p@/w", "host": "h", "port": "5433", "dbname": "d"},
        ),
        ("postgresql+psycopg://u@h/d", {"user": "u", "host": "h", "dbname": "d"}),
        ("postgresql://u@[::1]:5433/d", {"user": "u", "host": "::1", "port": "5433", "dbname": "d"}),
        (
            "postgresql://a:1,b:2/d?target_session_attrs=read-write",
            {"host": "a,b", "port": "1,2", "dbname": "d", "target_session_attrs": "read-write"},
        ),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql", "dbname": "d"}),
        ("host=a,b port=1,2 dbname=d", {"host": "a,b", "port": "1,2", "dbname": "d"}),
        ("host=@abstract dbname=d", {"host": "@abstract", "dbname": "d"}),
        ("service=tasks", {"service": "tasks"}),
        ("postgresql://h/d?options=-c%20work_mem%3D8MB", {"host": "h", "dbname": "d", "options": "-c work_mem=8MB"}),
        (r"password='it\'s' host=h", {"password": "it's", "host": "h"}),
        (
            "postgres://u@h/d?pool_max_conns=10&sslmode=require&default_query_exec_mode=simple_protocol",
            {"user": "u", "host": "h", "dbname": "d", "sslmode": "require"},
        ),
        ("postgres://h/d?pool_min_conns=1", {"host": "h", "dbname": "d"}),
        (
            "postgres://h/d?search_path=a%2C%20b&TimeZone=UTC&options=-cjit%3Doff&reproq.x=1",
            {"host": "h", "dbname": "d", "options": r"-cjit=off -csearch_path=a,\ b -cTimeZone=UTC -creproq.x=1"},
        ),
        (
            r"host=h password=s3 search_path='it\'s b' pool_max_conns = 5",
            {"host": "h", "password": "s3", "options": r"-csearch_path=it's\ b"},
        ),
    ],
)
def test_dsn_accepts_every_form_of_libpq(text: str, params: dict[str, str]) -> None:
    """URLs of three schemes and key=value strings mean to us what they mean to libpq."""
    assert psycopg.conninfo.conninfo_to_dict(dsn.conninfo(text)) == params


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "the DSN is empty"),
        ("  ", "the DSN is empty"),
        ("postgresql://u:s3cret\0@h/d", "NUL"),
        ("mysql://u:s3cret@h/d", "mysql:// is not PostgreSQL's; use postgresql://"),
        ("postgresql://u:s3cret%zz@h/d", "% is %25"),
        ('postgresql://u:s3"cr"et%zz@h/d', "% is %25"),
        ("postgresql://u:p@s3cret@h/d", "write an @ in user or password as %40"),
        ("postgresql://u:s3cret@h:54x/d", "port is not a number"),
        ("postgresql://h:s3cret/d", "port is not a number"),
        ("postgresql://u:s3cret@h/d?nonsense=1", "has a parameter nonsense that"),
        ("host=h nonsense=1", "has a parameter nonsense that"),
        ("host=h password=very s3cret=x", "has a parameter ... that"),
        ("postgresql://u:p/1?s3cret=x@h/d", "port is not a number"),
        ("postgresql://u:12/1?s3cret=x@h/d", "has a parameter ... that"),
        ("host=h s3cret", "Use postgresql://"),
        ("host=h password='s3cret", "Use postgresql://"),
        ("s3cret", "Use postgresql://"),
    ],
)
def test_dsn_errors_name_setting_and_remedy_and_no_password(text: str, remedy: str) -> None:
    """A DSN that cannot be read ends in an error that names its setting and a remedy, and repeats no part of it."""
    with pytest.raises(SettingError) as refused:
        dsn.conninfo(text, "DATABASE_URL")
    message = str(refused.value)
    assert message.startswith("DATABASE_URL: ")
    assert remedy in message
    assert "s3cret" not in message
    assert refused.value.__cause__ is None


def test_dsn_parameters_without_effect_are_named() -> None:
    """What tunes the Go program's driver is left out, and can be told."""
    url = "postgres://u:p@h/d?pool_max_conns=10&search_path=a&statement_cache_capacity=0"
    assert dsn.dropped_parameters(url) == ("pool_max_conns", "statement_cache_capacity")
    assert dsn.dropped_parameters("host=h") == ()


@given(password=PASSWORDS)
def test_dsn_description_shows_no_password(password: str) -> None:
    """Whatever the password, the description has the address and not the password; `secrets` has the password."""
    text = psycopg.conninfo.make_conninfo(host="db", user="app", password=password, sslpassword=password)
    shown = dsn.describe(text)
    assert "Zq9" not in shown
    assert psycopg.conninfo.conninfo_to_dict(shown) == {
        "host": "db",
        "user": "app",
        "password": "***",
        "sslpassword": "***",
    }
    assert dsn.secrets(text) == {password}


@given(text=st.text(max_size=60).map(lambda text: f"postgresql://u:Zq9{text}"))
def test_dsn_errors_never_repeat_the_text(text: str) -> None:
    """Any broken URL: either it is read, or the error has nothing of what follows the user's name."""
    try:
        dsn.conninfo(text)
    except SettingError as error:
        assert "Zq9" not in str(error)  # noqa: PT017 - most texts raise, some do not


@pytest.mark.parametrize("schema", ["", "a\0b"])
def test_dsn_refuses_an_impossible_schema(schema: str) -> None:
    """What cannot be a name is refused before anything connects."""
    with pytest.raises(SettingError, match="--schema"):
        dsn.conninfo("host=h", schema=schema)
