"""Settings; the database is that of DATABASE_URL."""

import os

from psycopg.conninfo import conninfo_to_dict

_dsn = conninfo_to_dict(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _dsn["dbname"],
        "USER": _dsn.get("user", ""),
        "PASSWORD": _dsn.get("password", ""),
        "HOST": _dsn.get("host", ""),
        "PORT": _dsn.get("port", ""),
        "TEST": {"NAME": f"{_dsn['dbname']}_test"},
    }
}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "reproq_listen.django"]
TASKS = {"default": {"BACKEND": "reproq_listen.django.ReproqBackend", "QUEUES": []}}
USE_TZ = True
SECRET_KEY = "only-for-tests"
