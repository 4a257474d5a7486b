"""How much memory a process uses, measured alike for the worker's metrics and for the limit of a pool child."""

import os
import resource
import sys

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of `ru_maxrss` of getrusage and wait4."""


def resident_bytes() -> int:
    """Give the memory of this process that is in RAM now; where the system does not tell, its peak so far."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
