"""For the tests of applications: fixtures of pytest, and what they give. See `reproq-listen docs testing`.

pytest finds the fixtures by itself (`reproq_listen.testing.plugin`); the names here are for annotations.
"""

from reproq_listen.testing.clock import Clock
from reproq_listen.testing.database import TestDatabase
from reproq_listen.testing.enqueued import EnqueuedTasks
from reproq_listen.testing.worker import DrainingWorker, FinishedAttempt

__all__ = ["Clock", "DrainingWorker", "EnqueuedTasks", "FinishedAttempt", "TestDatabase"]
