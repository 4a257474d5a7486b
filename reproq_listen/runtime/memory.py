"""How much memory this process uses, and saying so every so often (REPROQ_MEMORY_LOG_INTERVAL)."""

from __future__ import annotations

import asyncio
import os
import resource
from datetime import timedelta

from reproq_listen.logs.event_log import Event, Log


def resident_bytes() -> int:
    """Memory of this process that is in RAM; where the system does not say, the most there ever was."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def log_memory(interval: timedelta, log: Log) -> None:
    """Log the memory in use every interval until cancelled."""
    while True:
        log.info(Event.MEMORY, resident_bytes=resident_bytes())
        await asyncio.sleep(interval.total_seconds())
