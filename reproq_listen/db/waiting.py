"""Telling producers that a worker waits. They notify only then, because commits with NOTIFY are made one at a time.

A producer looks after it has written and before it commits. Transactions that were open when the worker began to wait
may have looked before, and commit tasks without a notification. So the worker has to claim again after each of them
has ended; from then on a notification tells of every task (sql/README.md, "Waking").
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from psycopg import AsyncConnection

from reproq_listen.db.worker_queries import notify_off, notify_on, open_transactions

_FIRST_LOOK = 0.005  # seconds
_GROWTH = 0.25  # of the time since the beginning: a task starts that much later than its transaction has taken, at most
_MAX_PAUSE = 30.0  # seconds


class Waiting:
    """Whether producers notify a listening connection. Ends with it: the server knows by a lock of its session.

    Every method raises psycopg.Error.
    """

    def __init__(self, connection: AsyncConnection, schema: str | None, queues: Collection[str]) -> None:
        self._connection = connection
        self._schema = schema
        self._queues = sorted(queues)
        self._transaction = 0  # older ones may commit tasks without a notification
        self._open = 0  # of those
        self._began = 0.0
        self._looked = 0.0
        self.is_on = False

    async def begin(self) -> None:
        """From now on producers notify. Claim afterwards."""
        self._transaction = await notify_on(self._connection, self._schema, self._queues)
        self.is_on = True
        self._open = await open_transactions(self._connection, self._schema, self._transaction)
        self._began = self._looked = asyncio.get_running_loop().time()

    async def end(self) -> None:
        """Producers need not notify any more."""
        self.is_on = False
        self._open = 0
        await notify_off(self._connection, self._schema, self._queues)

    def pause(self) -> float | None:
        """Seconds until `look` is due; None if there is nothing to look for."""
        if not self._open:
            return None
        now = asyncio.get_running_loop().time()
        pause = min(max(_FIRST_LOOK, _GROWTH * (self._looked - self._began)), _MAX_PAUSE)
        return max(0.0, self._looked + pause - now)

    async def look(self) -> bool:
        """Whether another of those transactions has ended: its tasks may be there. Claim afterwards."""
        before = self._open
        self._open = await open_transactions(self._connection, self._schema, self._transaction)
        self._looked = asyncio.get_running_loop().time()
        return self._open < before
