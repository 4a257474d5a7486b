"""What a task can learn from its executor and ask its worker: its context, and the exception that asks it to end.

Few imports, all of the standard library: the executor starts cold.
"""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from reproq_listen.protocol.executor import MAX_METADATA_BYTES

TYPE_CHECKING = False  # the module typing costs a cold start more than all of this
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any, Protocol, TypeVar

    from reproq_listen.child.payload import Spec
    from reproq_listen.child.requests import Requests
    from reproq_listen.child.steps import Steps
    from reproq_listen.child.transaction import Completion

    T = TypeVar("T")

    class TaskCall(Protocol):
        """A call of a decorated function."""

        def element(self) -> dict[str, object]:
            """Give it as reproq_enqueue_many takes it."""

    class Link(Protocol):
        """The way to the worker."""

        def send_metadata(self, body: bytes) -> None:
            """Send a JSON object, encoded, to be merged into the task's metadata."""

        def requests(self) -> "Requests":
            """Give what asks the worker. Raises OSError if there is none of ours."""


MAX_RESULTS_BYTES = 64 << 20


class Stopped(SystemExit):
    """Raised inside a task when it should end: timeout, cancel, lost lease or shutdown of the worker (SIGTERM).

    Some seconds later the process is killed. A task that catches it and returns in time has succeeded.
    """


class TaskContext:
    """First argument of a task that was enqueued with `takes_context`.

    `max_attempts`, `deadline`, `results`, `transaction` and `step` ask the worker once, when they are first used.
    """

    __slots__ = (
        *("_attempt_info", "_completion", "_follow_ups", "_is_stopped", "_link", "_spec", "_started", "_steps"),
        "_write_result",
        *("attempt", "result_id"),
    )

    def __init__(
        self,
        result_id: int,
        attempt: int,
        spec: "Spec",
        link: "Link",
        write_result: "Callable[[Any], object]",
    ) -> None:
        """`write_result` makes JSON of what the function returns."""
        self.result_id = result_id
        self.attempt = attempt
        self._spec = spec
        self._link = link
        self._write_result = write_result
        self._started = time.monotonic()
        self._is_stopped = False
        self._attempt_info: dict[str, Any] | None = None
        self._completion: Completion | None = None
        self._steps: Steps | None = None
        self._follow_ups: list[str] = []

    @property
    def queue_name(self) -> str:
        return self._spec.queue_name

    @property
    def task_path(self) -> str:
        return self._spec.path

    @property
    def max_attempts(self) -> int:
        """Attempts in all."""
        return int(self._limits()["max_attempts"])

    @property
    def is_last_attempt(self) -> bool:
        """Whether the task is FAILED if this attempt fails."""
        return self.attempt >= self.max_attempts

    @property
    def deadline(self) -> "datetime":
        """When this attempt is stopped because it has taken too long (UTC)."""
        from datetime import UTC, datetime, timedelta

        left = float(self._limits()["timeout_seconds"]) - (time.monotonic() - self._started)
        return datetime.now(UTC) + timedelta(seconds=left)

    def _limits(self) -> "dict[str, Any]":
        """As the worker knows them; in an executor of another program what the spec says."""
        try:
            return self._ask_attempt()
        except OSError:
            limits = self._spec.limits
            return {
                "max_attempts": limits.get("max_attempts") or 3,
                "timeout_seconds": limits.get("timeout_seconds") or 900,
            }

    def _ask_attempt(self) -> "dict[str, Any]":
        """Raises RequestError, and OSError where there is no worker of ours."""
        if self._attempt_info is None:
            info: dict[str, Any] = self._link.requests().ask("attempt")
            self._attempt_info = info
        return self._attempt_info

    def results(self, max_bytes: int = MAX_RESULTS_BYTES) -> "list[Any]":
        """Give the results of what this task waited for: of the members of its chord, in order, or of the step before
        it in its chain. Else an empty list. The worker reads them: the task needs no right and no connection.

        Raises ValueError if they have more than `max_bytes`, LookupError if some of the members were deleted,
        LeaseLostError if this attempt is over.
        """
        from reproq_listen.child.results import read_results

        return read_results(self._link.requests(), max_bytes)

    def transaction(self, connection: object) -> "Completion":
        """A transaction with the end of this task as its last statement: `with context.transaction(c) as done:`.

        What the block writes through this connection and the end of the task are committed together, or not at all.
        Set `done.result` to the result of the task; what the function returns is not stored then. `async with` takes an
        AsyncConnection. At the end of the block LeaseLostError is raised, and all rolled back, if the task belongs to
        another attempt. The connection is one to the database of the queue, and in no transaction.
        """
        from reproq_listen.child.transaction import Completion

        if self._completion is not None and self._completion.is_done:
            raise RuntimeError("this task has completed in a transaction already")
        self._ask_attempt()
        self._completion = Completion(connection, self._statement, self._take_follow_ups, self._write_result)
        return self._completion

    def step(
        self, name: str, function: "Callable[..., T]", /, *args: object, connection: object = None, **kwargs: object
    ) -> "T":
        """Call the function once for this task: what it returned is stored, and a later attempt gets that instead.

        `name` is unique within the task and the same in each attempt. The value is JSON, at most 1 MiB. For an async
        function this is awaitable. With `connection` the value is stored in one transaction with what the function
        writes through it. Raises what the function raises, LeaseLostError if this attempt is over.
        """
        if self._steps is None:
            from reproq_listen.child.steps import Steps

            if connection is not None:
                self._ask_attempt()
            self._steps = Steps(self._link.requests(), self._statement)
        value: T = self._steps.run(name, function, args, kwargs, connection)
        return value

    def enqueue(self, call: "TaskCall | Mapping[str, object]") -> None:
        """Enqueue a task together with the end of this one: if this attempt fails, it is not enqueued.

        `call`: task.call(...), or a mapping with the keys of reproq_enqueue_many.
        """
        if self._completion is not None and self._completion.is_done:
            raise RuntimeError("this task has completed in its transaction: enqueue before the end of that block")
        self._follow_ups.append(
            json.dumps(dict(call) if isinstance(call, Mapping) else call.element(), allow_nan=False)
        )

    def _take_follow_ups(self) -> str:
        return f"[{','.join(self._follow_ups)}]" if self._follow_ups else ""

    def _statement(self, call: str, values: Sequence[object]) -> tuple[str, Sequence[object]]:
        """Make the statement that calls a function of ours under the fence of this attempt."""
        from reproq_listen.child.transaction import statement

        info = self._ask_attempt()
        return statement(call, info["schema"]), (self.result_id, info["lease_token"], *values)

    def end(self, value: object) -> str:
        """The function has returned: give the tasks that follow as JSON text, if there are any.

        Raises CompletedError if the end of the task is stored already.
        """
        if self._completion is None or not self._completion.is_done:
            return self._take_follow_ups()
        if value is not None and value != self._completion.result:
            sys.stderr.write("what the task returned is not stored: it has completed in its own transaction\n")
        from reproq_listen.child.outcomes import CompletedError

        raise CompletedError

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
        self._link.send_metadata(body)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, from 0 to 1: it appears in `metadata_json` under `progress`.

        Raises ValueError for a fraction outside of these bounds.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
        self.save_metadata({"progress": {"fraction": fraction, "message": message}})
