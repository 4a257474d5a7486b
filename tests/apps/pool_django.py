"""A Django project with a database, in one file: settings and tasks."""

from __future__ import annotations

import os

from psycopg.conninfo import conninfo_to_dict

DSN_ENV = "POOL_DJANGO_DSN"
MAX_AGE_ENV = "POOL_DJANGO_MAX_AGE"

SECRET_KEY = "only for tests"
USE_TZ = True
_dsn = conninfo_to_dict(os.environ.get(DSN_ENV, ""))
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _dsn.get("dbname"),
        "USER": _dsn.get("user"),
        "HOST": _dsn.get("host"),
        "PORT": _dsn.get("port", ""),
        "PASSWORD": _dsn.get("password", ""),
        "OPTIONS": {"application_name": "pool_django"},
        "CONN_MAX_AGE": int(os.environ.get(MAX_AGE_ENV, "0")),
    }
}


def backend() -> int:
    """The server's process for this child."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return int(cursor.fetchone()[0])


def insert() -> int:
    """A row, committed by itself unless an earlier task has left a transaction open."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("insert into written default values")
    return os.getpid()


def leave_autocommit_off() -> int:
    from django.db import transaction

    transaction.set_autocommit(False)
    return insert()


def leave_atomic() -> int:
    from django.db import transaction

    transaction.atomic().__enter__()
    return insert()


def nothing() -> int:
    return os.getpid()
