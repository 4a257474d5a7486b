"""The app of INSTALLED_APPS: it has the migration."""

from __future__ import annotations

from django.apps import AppConfig


class ReproqConfig(AppConfig):
    """Named so that it stays out of the way of Reproq Django in the same project."""

    name = "reproq_listen.django"
    label = "reproq_listen"
    verbose_name = "Background tasks"
