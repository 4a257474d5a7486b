"""Background tasks out of PostgreSQL.

The names in `__all__` are the public interface. Everything else in this package is private and may change.
"""

from typing import TYPE_CHECKING

from reproq_listen.task.context import Stopped, TaskContext

if TYPE_CHECKING:
    from reproq_listen.task.outcomes import Discard, Retry, Snooze, Throttled

__all__ = ["Discard", "Retry", "Snooze", "Stopped", "TaskContext", "Throttled", "__version__"]

__version__ = "0.1.0"

_MODULES = dict.fromkeys(("Discard", "Retry", "Snooze", "Throttled"), "task.outcomes")
"""Where names are that are imported at their first use: each task starts with this module."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
