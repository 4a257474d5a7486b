"""Limits of a process: memory, open files, core dumps."""

import contextlib
import resource
import sys


def limit_memory(pid: int, limit: int) -> None:
    """Limit the private memory of a process to this number of bytes (0: no limit); beyond it, allocations fail.

    Counts allocated memory, without shared libraries and files mapped for reading. Linux only.
    """
    if limit and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def raise_open_files() -> int:
    """Raise this process's soft limit of open files to its hard limit. Gives the former soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems allow less than the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def limit_open_files(pid: int, limit: int) -> None:
    """Set the soft limit of open files of a process (0: leave it), which the process may raise.

    Some programs cannot cope with a large limit. Linux only.
    """
    if limit and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def forbid_core_dumps() -> None:
    """Forbid core dumps of this process and of those it starts: memory holds payloads and passwords."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
