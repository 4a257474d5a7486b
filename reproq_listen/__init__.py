"""Background tasks out of PostgreSQL.

The names in `__all__` are the public interface. Everything else in this package is private and may change.
"""

from reproq_listen.task.context import Stopped, TaskContext

__all__ = ["Stopped", "TaskContext", "__version__"]

__version__ = "0.1.0"
