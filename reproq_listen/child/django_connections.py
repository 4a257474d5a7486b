"""The connections that tasks of a pool child make through Django, treated as between two requests of a web server."""

import _thread
import contextlib
import sys
from typing import Any

_SIGNALS = "django.db.backends.signals"
"""Imported together with the first database driver."""


class DjangoConnections:
    """Tracks the connections of this thread. Costs next to nothing without Django, or while there are none."""

    def __init__(self) -> None:
        self._connections: Any = None
        """Django's own collection; None until Django has imported a database driver."""
        self._made: set[Any] = set()
        self._thread = _thread.get_ident()

    def _on_created(self, connection: Any, **_: Any) -> None:  # noqa: ANN401
        if _thread.get_ident() == self._thread:
            self._made.add(connection)

    def after_task(self) -> None:
        """Close connections that failed, are too old (CONN_MAX_AGE), or have an open transaction. Raises anything."""
        if self._connections is None and _SIGNALS in sys.modules:
            self._watch()
        for connection in list(self._made):
            is_in_transaction = connection.in_atomic_block
            if is_in_transaction:
                connection.close()
                with contextlib.suppress(AttributeError):
                    del self._connections[connection.alias]  # the object would stay in its transaction
            else:
                connection.close_if_unusable_or_obsolete()
            if is_in_transaction or connection.connection is None:
                self._made.discard(connection)

    def _watch(self) -> None:
        self._connections = sys.modules["django.db"].connections
        sys.modules[_SIGNALS].connection_created.connect(self._on_created)
        if sys.modules["django.conf"].settings.configured:
            self._made.update(self._connections.all(initialized_only=True))
