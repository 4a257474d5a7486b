"""Background tasks out of PostgreSQL.

The names in `__all__` are the public interface. Everything else in this package is private and may change.
"""

from reproq_listen.task.context import Stopped, TaskContext

TYPE_CHECKING = False  # the module typing costs a cold start more than all of this
if TYPE_CHECKING:
    from reproq_listen.task.outcomes import Discard, Retry, Snooze, Throttled
    from reproq_listen.task.requests import LeaseLostError, RequestError

__all__ = [
    "Discard",
    "LeaseLostError",
    "RequestError",
    "Retry",
    "Snooze",
    "Stopped",
    "TaskContext",
    "Throttled",
    "__version__",
]

__version__ = "0.1.0"

_MODULES = {
    **dict.fromkeys(("Discard", "Retry", "Snooze", "Throttled"), "task.outcomes"),
    **dict.fromkeys(("LeaseLostError", "RequestError"), "task.requests"),
}
"""Where names are that are imported at their first use: each task starts with this module."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return value
