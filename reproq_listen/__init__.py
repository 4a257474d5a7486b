"""Background tasks out of PostgreSQL.

The names in `__all__` are the public interface. Everything else in this package is private and may change.
Names are imported when they are used: the process of a task pays for nothing else, and the decorator needs no driver.
"""

from reproq_listen.child.context import Stopped, TaskContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reproq_listen.child.outcomes import Discard, Retry, Snooze, Throttled
    from reproq_listen.child.requests import LeaseLostError, RequestError
    from reproq_listen.client.async_client import AsyncClient, AsyncTaskResult
    from reproq_listen.client.client import Client
    from reproq_listen.client.results import AttemptError, TaskResult
    from reproq_listen.client.schedules import Schedule
    from reproq_listen.client.task import Task, TaskCall, task
    from reproq_listen.client.workflows import Workflow, chain, chord, group
    from reproq_listen.errors import (
        InvalidArgumentsError,
        InvalidTaskError,
        NoSuchTaskError,
        ReproqError,
        TaskFailedError,
        TaskUnfinishedError,
    )

__all__ = [
    "AsyncClient",
    "AsyncTaskResult",
    "AttemptError",
    "Client",
    "Discard",
    "InvalidArgumentsError",
    "InvalidTaskError",
    "LeaseLostError",
    "NoSuchTaskError",
    "ReproqError",
    "RequestError",
    "Retry",
    "Schedule",
    "Snooze",
    "Stopped",
    "Task",
    "TaskCall",
    "TaskContext",
    "TaskFailedError",
    "TaskResult",
    "TaskUnfinishedError",
    "Throttled",
    "Workflow",
    "__version__",
    "chain",
    "chord",
    "group",
    "task",
]

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "client.async_client",
    "AsyncTaskResult": "client.async_client",
    "AttemptError": "client.results",
    "Client": "client.client",
    "Discard": "child.outcomes",
    "InvalidArgumentsError": "errors",
    "InvalidTaskError": "errors",
    "LeaseLostError": "child.requests",
    "NoSuchTaskError": "errors",
    "ReproqError": "errors",
    "RequestError": "child.requests",
    "Retry": "child.outcomes",
    "Snooze": "child.outcomes",
    "Schedule": "client.schedules",
    "Task": "client.task",
    "TaskCall": "client.task",
    "TaskFailedError": "errors",
    "TaskResult": "client.results",
    "TaskUnfinishedError": "errors",
    "Throttled": "child.outcomes",
    "Workflow": "client.workflows",
    "chain": "client.workflows",
    "chord": "client.workflows",
    "group": "client.workflows",
    "task": "client.task",
}
"""Where the public names that are imported on use are defined."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
