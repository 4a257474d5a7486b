"""This start of the worker in the registry of workers."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from uuid import UUID

from reproq_listen import __version__
from reproq_listen.config.settings import WorkerSettings
from reproq_listen.db.errors import CallError
from reproq_listen.db.worker_queries import WorkerQueries

_LEAVE_LIMIT = 1.0  # seconds


class Registration:
    """Owns the entry. Its incarnation tells this start from an earlier one with the same worker id."""

    def __init__(self, queries: WorkerQueries, settings: WorkerSettings) -> None:
        self._queries = queries
        self._settings = settings
        self._incarnation: UUID | None = None

    @property
    def incarnation(self) -> UUID:
        """Known once `enter` has returned."""
        assert self._incarnation is not None, "the worker is not registered"
        return self._incarnation

    async def enter(self) -> UUID:
        """Add the entry. Raises CallError."""
        settings = self._settings
        self._incarnation = await self._queries.register(
            settings.worker_id,
            socket.gethostname(),
            settings.concurrency,
            settings.queues,
            __version__,
            settings.allowed_task_modules,
        )
        return self._incarnation

    async def leave(self) -> None:
        """Remove the entry. If the database is away it stays, and counts as alive for five minutes."""
        with suppress(CallError, TimeoutError):
            async with asyncio.timeout(_LEAVE_LIMIT):
                await self._queries.unregister(self._settings.worker_id, self.incarnation)
