"""Databases of Django's settings, as the rest of reproq-listen wants them."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import connections
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

BACKEND = "reproq_listen.django.ReproqBackend"
DEFAULT_ALIAS = "default"


def aliases() -> set[str]:
    """Aliases of the databases that backends of ours use; the default one if there is no such backend."""
    found = {
        str(backend.get("OPTIONS", {}).get("DATABASE", DEFAULT_ALIAS))
        for backend in getattr(settings, "TASKS", {}).values()
        if backend.get("BACKEND") == BACKEND
    }
    return found or {DEFAULT_ALIAS}


def schema_of(alias: str) -> str | None:
    """The schema that a backend names for this database."""
    for backend in getattr(settings, "TASKS", {}).values():
        options = backend.get("OPTIONS", {})
        if backend.get("BACKEND") == BACKEND and options.get("DATABASE", DEFAULT_ALIAS) == alias:
            return options.get("SCHEMA")  # type: ignore[no-any-return]
    return None


def dsn(alias: str) -> str:
    """The DSN of a database as it is now: that of the test database while tests run."""
    connection: Any = connections[alias]
    given = connection.settings_dict
    parameters = {
        "dbname": given["NAME"],
        "user": given["USER"],
        "password": given["PASSWORD"],
        "host": given["HOST"],
        "port": given["PORT"],
    }
    of_libpq = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters |= {name: value for name, value in given.get("OPTIONS", {}).items() if name in of_libpq}
    return make_conninfo(**{name: value for name, value in parameters.items() if value})
