"""The environment that children inherit."""

import os
from collections.abc import Sequence

from reproq_listen.model import ExecutorSettings
from reproq_listen.protocol import allowlist
from reproq_listen.protocol.executor import ALLOW_ENV, RESULT_FD_ENV, TAG_ENV

_NEVER_INHERITED = frozenset({ALLOW_ENV, TAG_ENV, RESULT_FD_ENV, "REPROQ_MEMORY_LOG_INTERVAL"})
"""The last one is the worker's. In an application with Reproq Django it would start a thread while that is imported."""
_ALWAYS_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_*", "TZ", "TMPDIR", "PYTHON*", "VIRTUAL_ENV")


def environment_for_children(settings: ExecutorSettings) -> dict[str, str]:
    """Give what every child inherits: this process's environment without what is the worker's, and with the allow-list.

    With `executor_env`, only what that names, and what any program needs. The URL of an embedded database is set.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("METRICS_")
        and name not in _NEVER_INHERITED
        and (settings.executor_env is None or _is_named(name, (*_ALWAYS_INHERITED, *settings.executor_env)))
    }
    if settings.database_url is not None:
        inherited["DATABASE_URL"] = settings.database_url
    inherited[ALLOW_ENV] = allowlist.pack(settings.allowed_task_modules)
    return inherited


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern covers the name. A pattern is a name, or the beginning of names with a star behind it."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)
