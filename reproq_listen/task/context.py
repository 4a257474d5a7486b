"""What a task can learn from its executor: its context, and the exception that asks it to end.

Few imports, all of the standard library: the executor starts cold.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from reproq_listen.protocol.executor import MAX_METADATA_BYTES


class Stopped(SystemExit):
    """Raised inside a task when it should end: timeout, cancel, lost lease or shutdown of the worker (SIGTERM).

    Some seconds later the process is killed. A task that catches it and returns in time has succeeded.
    """


class TaskContext:
    """First argument of a task that was enqueued with `takes_context`."""

    __slots__ = ("_is_stopped", "_send_metadata", "attempt", "queue_name", "result_id", "task_path")

    def __init__(
        self, result_id: int, attempt: int, queue_name: str, task_path: str, send_metadata: Callable[[bytes], None]
    ) -> None:
        """`send_metadata` takes a JSON object, encoded, to be merged into the task's metadata."""
        self.result_id = result_id
        self.attempt = attempt
        self.queue_name = queue_name
        self.task_path = task_path
        self._send_metadata = send_metadata
        self._is_stopped = False

    @property
    def stop_requested(self) -> bool:
        """Whether the task should end. True only in and after `stop_held`: elsewhere `Stopped` is raised."""
        return self._is_stopped

    @contextmanager
    def stop_held(self) -> Iterator[None]:
        """Hold back `Stopped` until the end of this block. Inside it, look at `stop_requested`.

        For the main thread. Leave the block before the grace is over (`--grace-seconds`): then the process is killed.
        """
        before = signal.signal(signal.SIGTERM, self._on_stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        if self._is_stopped:
            raise Stopped(128 + signal.SIGTERM)

    def _on_stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_stopped = True

    def save_metadata(self, values: Mapping[str, object]) -> None:
        """Set these keys of the task's `metadata_json` while it runs. Readers see them within about a second.

        Raises TypeError or ValueError if they are not JSON or have more than 64 KiB. Undeliverable metadata is dropped
        (the lease is lost, or the worker is not ours): it is for people who watch the task, not for results.
        """
        body = json.dumps(dict(values), allow_nan=False).encode()
        if len(body) > MAX_METADATA_BYTES:
            raise ValueError(f"the metadata has {len(body)} bytes; the limit is {MAX_METADATA_BYTES}")
        self._send_metadata(body)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, from 0 to 1: it appears in `metadata_json` under `progress`.

        Raises ValueError for a fraction outside of these bounds.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
        self.save_metadata({"progress": {"fraction": fraction, "message": message}})
