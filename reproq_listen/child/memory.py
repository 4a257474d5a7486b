"""Whether a pool child has enough memory for its next task."""

import errno

from reproq_listen.protocol.memory import resident_bytes

_MAX_CAUSES = 10
_RESERVE_BYTES = 4 << 20


class Memory:
    """Knows the limit, and whether a task ran out of memory."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: resident memory allowed between two tasks; 0: no limit."""
        self._max_bytes = max_bytes
        self._ran_out = False
        self._reserve = bytes(_RESERVE_BYTES)

    def task_failed(self, error: BaseException) -> None:
        """If the task ran out of memory, free the reserve: its failure must be reported all the same."""
        if _is_out_of_memory(error):
            self._ran_out, self._reserve = True, b""

    def shortage(self) -> str | None:
        """Give the reason why no other task should run here, if there is one."""
        if self._ran_out:
            return "a task ran out of memory"
        if not self._max_bytes:
            return None
        size = resident_bytes()
        return f"its memory has grown to {size >> 20} MiB" if size > self._max_bytes else None


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this error, or one of its causes, says that memory ran out."""
    for _ in range(_MAX_CAUSES):
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        error = error and (error.__cause__ or error.__context__)
    return False
