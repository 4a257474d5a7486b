"""The environment that children inherit."""

import os
from collections.abc import Mapping, Sequence

from reproq_listen.model import ExecutorSettings
from reproq_listen.protocol import allowlist
from reproq_listen.protocol.executor import ALLOW_ENV, MARK_ENV, RESULT_FD_ENV

_NEVER_INHERITED = frozenset({ALLOW_ENV, MARK_ENV, RESULT_FD_ENV})


_ALWAYS_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "PYTHON*", "VIRTUAL_ENV")


def environment_for_children(settings: ExecutorSettings, ours: Mapping[str, str]) -> dict[str, str]:
    """What every child inherits: our environment without the server's secrets, and with the allow-list.

    With `executor_env` only what it names, and what any program needs.
    """
    kept = {
        name: value
        for name, value in ours.items()
        if not name.startswith("METRICS_")
        and name not in _NEVER_INHERITED
        and (settings.executor_env is None or _is_named(name, (*_ALWAYS_INHERITED, *settings.executor_env)))
    }
    kept[ALLOW_ENV] = allowlist.pack(settings.allowed_task_modules)
    return kept


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    """A pattern is a whole name, or the beginning of names with a star behind it."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def environment(settings: ExecutorSettings) -> dict[str, str]:
    """What children of this process get of its environment."""
    return environment_for_children(settings, os.environ)
