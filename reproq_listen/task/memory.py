"""Whether a pool child has memory for its next task. Standard library only."""

import errno
import os

_MAX_CAUSES = 10
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESERVE_BYTES = 4 << 20


class Memory:
    """Knows the limit, and whether a task has run out of memory."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: resident between two tasks; 0 is any number."""
        self._max_bytes = max_bytes
        self._is_wanting = False
        self._reserve = bytes(_RESERVE_BYTES)

    def note(self, error: BaseException) -> None:
        """A task has failed. If it was for want of memory, its end must be told all the same: the reserve is let go."""
        if _is_want_of_memory(error):
            self._is_wanting, self._reserve = True, b""

    def look(self) -> str | None:
        """Why there is none for the next task, if so."""
        if self._is_wanting:
            return "a task ran out of memory"
        if not self._max_bytes:
            return None
        size = _resident_bytes()
        return f"its memory has grown to {size >> 20} MiB" if size > self._max_bytes else None


def _is_want_of_memory(error: BaseException | None) -> bool:
    """Whether this came of it, directly or not."""
    for _ in range(_MAX_CAUSES):
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        error = error and (error.__cause__ or error.__context__)
    return False


def _resident_bytes() -> int:
    """What this process has in memory now; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
