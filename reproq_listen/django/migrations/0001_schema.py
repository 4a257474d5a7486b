"""Runs the migrations of reproq-listen on each database that a backend of ours uses. They adopt existing tables."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from reproq_listen.db.migrations import migrate
from reproq_listen.django import database


def forwards(_apps: Any, schema_editor: Any) -> None:
    """Each step is a transaction of its own, on a connection of its own."""
    alias = schema_editor.connection.alias
    if alias in database.aliases() and schema_editor.connection.vendor == "postgresql":
        migrate(database.dsn(alias), schema=database.schema_of(alias), report=lambda _: None)


class Migration(migrations.Migration):
    """To take the schema back: `reproq-listen migrate --rollback`."""

    atomic = False
    operations = [migrations.RunPython(forwards, migrations.RunPython.noop, elidable=False)]
