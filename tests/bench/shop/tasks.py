"""Tasks that need the whole project and do next to nothing."""

import time

import django.contrib.admin.sites
import django.contrib.auth.views
import django.core.mail
import django.forms
import django.template.loader
import django.test.client
from django.contrib.auth import get_user_model

from reproq_listen.child.context import Stopped


def nothing() -> None:
    """Return at once."""


def now_ns() -> int:
    """When it started, by the machine's clock."""
    return time.time_ns()


def knows_its_models() -> str:
    """Something that only works in a project that is set up."""
    return str(get_user_model()._meta.label)


def wait() -> None:
    """Until told to stop."""
    try:
        time.sleep(600)
    except Stopped:
        return


__all__ = ["django", "knows_its_models", "nothing", "now_ns", "wait"]
