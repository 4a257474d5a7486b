"""DSNs in every form that libpq knows, and how to show them without their secrets.

Accepted: `postgres://`, `postgresql://` and `postgresql+psycopg://` URLs and `key=value` strings, with one or several
hosts, sockets, IPv6, percent-encoding, `options` and `service`. Everything else in the program gets libpq conninfo.

The Go program's driver (pgx) takes more: parameters of the server, such as `search_path`, go into `options`; those of
the driver itself, such as `pool_max_conns`, have no effect.
"""

from __future__ import annotations

import os
import re
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from reproq_listen.db.addresses import default_parameters
from reproq_listen.db.dsn_parameters import is_of_driver, is_of_server, split
from reproq_listen.errors import SettingError

_SECRET_KEYS: Final = ("password", "sslpassword", "oauth_client_secret")
_DRIVER_SCHEME: Final = re.compile(r"^(postgres|postgresql)\+psycopg[0-9]?://")
_QUOTED: Final = re.compile(r'".*"', re.DOTALL)


def conninfo(dsn: str, setting: str = "--dsn", *, schema: str | None = None) -> str:
    """The DSN as libpq conninfo (`key=value` pairs).

    `schema` goes first in the search path of every session, ahead of what `options` of the DSN may say.
    Raises SettingError, which names `setting` and never repeats a piece of the DSN: any piece may be the password.
    """
    params = _parse(dsn, setting)
    if "service" in params and not ("host" in params or "hostaddr" in params):
        params = _hosts_of_service(params["service"]) | params
    if schema is not None:
        options = f"{params.get('options', '')} {_search_path_option(schema, setting)}"
        params["options"] = options.strip()
    return make_conninfo("", **params)


def secrets(dsn: str, setting: str = "--dsn") -> frozenset[str]:
    """The values in the DSN that must never be shown: a log replaces them wherever it finds them."""
    params = _parse(dsn, setting)
    return frozenset(params[key] for key in _SECRET_KEYS if params.get(key))


def describe(dsn: str, setting: str = "--dsn") -> str:
    """The DSN for people: `key=value` pairs in libpq's order, each secret replaced by `***`."""
    params = _parse(dsn, setting)
    return make_conninfo("", **{key: "***" if key in _SECRET_KEYS else value for key, value in params.items()})


def as_owner(dsn: str, setting: str = "--dsn") -> str:
    """The DSN as its owner would give it: as `describe`, with OWNER for the user and without secrets."""
    params = {key: value for key, value in _parse(dsn, setting).items() if key not in _SECRET_KEYS}
    return make_conninfo("", **params | {"user": "OWNER"})


def dropped_parameters(dsn: str, setting: str = "--dsn") -> tuple[str, ...]:
    """The names of parameters that have no effect here."""
    _check_text(dsn, setting)
    return tuple(name for name, _ in split(dsn.strip()).foreign if is_of_driver(name))


def _hosts_of_service(name: str) -> dict[str, str]:
    """Where the service of this name is, as libpq reads it; else it would look names up while all else waits."""
    before = os.environ.get("PGSERVICE")
    os.environ["PGSERVICE"] = name
    try:
        found = default_parameters()
    finally:
        if before is None:
            del os.environ["PGSERVICE"]
        else:
            os.environ["PGSERVICE"] = before
    if "host" not in found and "hostaddr" not in found:
        return {}
    return {key: found[key] for key in ("host", "hostaddr", "port", "connect_timeout") if key in found}


def _check_text(dsn: str, setting: str) -> None:
    if not dsn.strip():
        raise SettingError(f"{setting}: the DSN is empty; give for example postgresql://user@host:5432/dbname")
    if "\0" in dsn:
        raise SettingError(f"{setting}: the DSN holds a NUL character; remove it")


def _parse(dsn: str, setting: str) -> dict[str, str]:
    _check_text(dsn, setting)
    url = _DRIVER_SCHEME.sub("postgresql://", dsn.strip())
    scheme = re.match(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://", url)
    if scheme and scheme.group(1) not in ("postgres", "postgresql"):
        raise SettingError(
            f"{setting}: the scheme {scheme.group(1)}:// is not PostgreSQL's; use postgresql://user@host:5432/dbname"
        )
    parts = split(url)
    try:
        parsed = conninfo_to_dict(parts.dsn)
    except psycopg.ProgrammingError as error:
        reason = _QUOTED.sub('"..."', str(error)).strip()
        # The cause is dropped on purpose: libpq's text quotes the DSN, password included.
        raise SettingError(
            f"{setting}: not a DSN that PostgreSQL understands: {reason}. {_advice(is_url=scheme is not None)}"
        ) from None
    params = {key: str(value) for key, value in parsed.items() if value is not None}
    _check_address(params, setting, is_url=scheme is not None)
    for name, value in parts.foreign:
        if is_of_server(name):
            params["options"] = f"{params.get('options', '')} -c{name}={_escaped(value)}".strip()
        elif not is_of_driver(name):
            raise SettingError(
                f"{setting}: the DSN has a parameter {name if parts.is_certain else '...'} that neither PostgreSQL nor "
                f"the Go program knows: remove it, or correct its name. {_advice(is_url=scheme is not None)}"
            )
    return params


def _check_address(params: dict[str, str], setting: str, *, is_url: bool) -> None:
    # libpq ends the password at the first @ and reads the rest of it as a host, which would then be shown.
    if is_url and "@" in params.get("host", ""):
        raise SettingError(f"{setting}: the host holds an @; write an @ in user or password as %40")
    if not re.fullmatch(r"[0-9,]*", params.get("port", "")):
        raise SettingError(f"{setting}: the port is not a number; write a : or @ in the password as %3A or %40")


def _advice(*, is_url: bool) -> str:
    if is_url:
        return "In a URL write special characters of user and password percent-encoded (% is %25, @ is %40, / is %2F)."
    return "Use postgresql://user:password@host:5432/dbname, or host=... port=... dbname=... user=... password=..."


def _search_path_option(schema: str, setting: str) -> str:
    if not schema or "\0" in schema:
        raise SettingError(f"--schema: {schema!r} (used with {setting}) is not a schema name; give one like 'tasks'")
    quoted = '"' + schema.replace('"', '""') + '"'
    return f"-csearch_path={_escaped(quoted)}"


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)
