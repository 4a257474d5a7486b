"""What a task may know of its executor: the context it is given, and the exception that asks it to end.

Standard library only, and little of it: the executor starts cold.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from reproq_listen.protocol.executor import MAX_NOTE_BYTES


class Stopped(SystemExit):
    """Raised inside a task when its worker wants it to end: timeout, cancel, lost lease or shutdown (SIGTERM).

    Some seconds later the process is killed. A task that catches it and returns in time has succeeded.
    """


class TaskContext:
    """First argument of a task that was enqueued with `takes_context`."""

    __slots__ = ("_is_stopped", "_note", "attempt", "queue_name", "result_id", "task_path")

    def __init__(
        self, result_id: int, attempt: int, queue_name: str, task_path: str, note: Callable[[bytes], None]
    ) -> None:
        """`note` takes a JSON object to be merged into the task's metadata, encoded."""
        self.result_id = result_id
        self.attempt = attempt
        self.queue_name = queue_name
        self.task_path = task_path
        self._note = note
        self._is_stopped = False

    @property
    def stop_requested(self) -> bool:
        """Whether the worker wants the task to end. True only in and after `stop_held`: elsewhere `Stopped` says it."""
        return self._is_stopped

    @contextmanager
    def stop_held(self) -> Iterator[None]:
        """Inside this block a stop does not interrupt: look at `stop_requested`. `Stopped` is raised at its end.

        For the main thread. Be done before the grace is over (`--grace-seconds`): then the process is killed.
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
        """Set these keys of the task's `metadata_json`, while it runs: seen by others within about a second.

        Raises TypeError or ValueError if they are no JSON or more than 64 KiB. What cannot be delivered (the lease
        is lost, there is no worker of ours) is dropped: this is for people who look on, not for results.
        """
        body = json.dumps(dict(values), allow_nan=False).encode()
        if len(body) > MAX_NOTE_BYTES:
            raise ValueError(f"the metadata has {len(body)} bytes; the limit is {MAX_NOTE_BYTES}")
        self._note(body)

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the task is, from 0 to 1: in `metadata_json`, under `progress`.

        Raises ValueError outside of these bounds.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
        self.save_metadata({"progress": {"fraction": fraction, "message": message}})
