"""Limits of a process: memory, open files, core dumps."""

import contextlib
import resource
import sys


def limit_memory(pid: int, limit: int) -> None:
    """Let a process have so many bytes of memory of its own (0: any number); beyond it, allocations fail.

    Counts what it has asked for, shared libraries and files mapped for reading not included. Linux only.
    """
    if limit and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def raise_open_files() -> int:
    """Let this process have as many open files as it may. Gives how many it could have so far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the system allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def limit_open_files(pid: int, limit: int) -> None:
    """Let a process have so many open files (0: as it is) unless it asks for more, since there are programs that cannot
    cope with many. Linux only."""
    if limit and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))


def forbid_core_dumps() -> None:
    """For this process, which holds payloads and passwords too, and all that it starts from now on."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
