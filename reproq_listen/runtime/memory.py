"""Logging how much memory this process uses, at an interval (REPROQ_MEMORY_LOG_INTERVAL)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from reproq_listen.logs.event_log import Event, Log
from reproq_listen.protocol.memory import resident_bytes


async def log_memory(interval: timedelta, log: Log) -> None:
    """Log the memory in use every interval until cancelled."""
    while True:
        log.info(Event.MEMORY, resident_bytes=resident_bytes())
        await asyncio.sleep(interval.total_seconds())
