"""For the tests of applications: fixtures of pytest, and what they give. See `reproq-listen docs testing`.

pytest finds the fixtures by itself (`reproq_listen.testing.plugin`); the names here are for annotations. They are
imported when they are used, because pytest imports this package in every project that has it installed.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reproq_listen.testing.clock import Clock
    from reproq_listen.testing.database import TestDatabase
    from reproq_listen.testing.enqueued import EnqueuedTasks
    from reproq_listen.testing.worker import DrainingWorker, FinishedAttempt

__all__ = ["Clock", "DrainingWorker", "EnqueuedTasks", "FinishedAttempt", "TestDatabase"]

_HOMES = {
    "Clock": "clock",
    "DrainingWorker": "worker",
    "EnqueuedTasks": "enqueued",
    "FinishedAttempt": "worker",
    "TestDatabase": "database",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
