"""How often a worker shows itself in the registry."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from reproq_listen.config.settings import worker_settings
from reproq_listen.db.worker_queries import Answer
from reproq_listen.logs.event_log import Log
from reproq_listen.worker import heartbeat
from reproq_listen.worker.heartbeat import Heartbeat
from reproq_listen.worker.leases import Leases


def test_last_seen_is_at_most_half_a_minute_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the settings say: programs that read the registry take a worker for dead soon after (here in 1/1000)."""
    log = Log(logging.getLogger("nowhere"))
    beats: list[float] = []

    class Queries:
        async def heartbeat(self, *_: object) -> list[Answer]:
            beats.append(asyncio.get_running_loop().time())
            return []

    class Registration:
        incarnation = UUID(int=0)

    async def run() -> None:
        settings = worker_settings({"--dsn": "host=h", "--lease-seconds": "3600", "--heartbeat-seconds": "600"}, {})
        leases = Leases(settings.lease, timedelta(seconds=5), log)
        beating = asyncio.create_task(
            Heartbeat(cast("Any", Queries()), settings, cast("Any", Registration()), leases, log).run()
        )
        await asyncio.sleep(0.5)
        beating.cancel()

    assert heartbeat._MAX_INTERVAL == 30
    monkeypatch.setattr(heartbeat, "_MAX_INTERVAL", 0.03)
    asyncio.run(run())
    assert len(beats) > 3
