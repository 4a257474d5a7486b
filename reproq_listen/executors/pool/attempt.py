"""One attempt in the pool: a task that waits for a child, or is assigned to one."""

import enum
from collections.abc import Callable
from typing import Protocol

from reproq_listen.executors.process.pipes import OutputBuffer
from reproq_listen.model import CapturedOutput, ClaimedTask, Outcome, StopReason, TaskError

NO_OUTPUT = CapturedOutput(b"", b"", 0)
_HEAD_BYTES = _TAIL_BYTES = 32 << 10


class Place(enum.Enum):
    """WAITING (in the pool) → ASSIGNED (to a child; may go back to WAITING) → ENDED."""

    WAITING = enum.auto()
    ASSIGNED = enum.auto()
    ENDED = enum.auto()


class AttemptOwner(Protocol):
    """What stops an attempt, wherever it is."""

    def stop(self, attempt: "PoolAttempt", reason: StopReason) -> None: ...

    def kill(self, attempt: "PoolAttempt") -> None: ...


class PoolAttempt:
    """A task, where it is, and what is called at its end. Only the pool makes and moves attempts."""

    __slots__ = (
        "assigned_at",
        "child",
        "estimate",
        "on_end",
        "on_start",
        "output",
        "owner",
        "path",
        "place",
        "since",
        "spec",
        "stopped",
        "task",
    )

    def __init__(
        self,
        owner: AttemptOwner,
        task: ClaimedTask,
        spec: bytes,
        on_end: Callable[[Outcome], None],
        on_start: Callable[[], None] | None,
        since: float,
    ) -> None:
        """`on_start` is called when a child is about to run the task, at most once. `on_end` is called once.

        An outcome of kind `shutdown` means: not run to its end, give the task back.
        """
        self.owner = owner
        self.task = task
        self.path = task.task_path or ""
        self.spec = spec
        self.on_end = on_end
        self.on_start = on_start
        self.place = Place.WAITING
        self.since = since
        """When it came to the pool (monotonic seconds)."""
        self.assigned_at = since
        """When it was assigned to a child last (monotonic seconds)."""
        self.stopped: StopReason | None = None
        self.child: object = None
        self.estimate = 0.0
        """Expected duration in seconds, from when it was assigned."""
        self.output: dict[int, OutputBuffer] | None = None
        """What it has printed, by kind of record (protocol/pool.py)."""

    def stop(self, reason: StopReason) -> None:
        """End the attempt. Only the first call counts. An attempt that has not been started ends at once."""
        if self.place is not Place.ENDED and self.stopped is None:
            self.owner.stop(self, reason)

    def kill(self) -> None:
        """End it without grace; without a stop before, for shutdown."""
        if self.place is not Place.ENDED:
            self.owner.kill(self)

    def start(self) -> None:
        """A child is about to run it."""
        on_start, self.on_start = self.on_start, None
        if on_start is not None:
            on_start()

    def print(self, kind: int, data: bytes) -> None:
        """Keep what the task has printed, within bounds."""
        if self.output is None:
            self.output = {}
        if kind not in self.output:
            self.output[kind] = OutputBuffer(_HEAD_BYTES, _TAIL_BYTES)
        self.output[kind].feed(data)

    def printed(self, kind: int) -> CapturedOutput:
        """Give what it has printed."""
        buffer = self.output.get(kind) if self.output else None
        return buffer.captured() if buffer else NO_OUTPUT

    def end(self, outcome: Outcome) -> None:
        self.place = Place.ENDED
        self.child = None
        self.on_end(outcome)


def not_started(reason: StopReason) -> Outcome:
    """Give the outcome of an attempt that was stopped before it started."""
    message = f"the task was stopped before it started: {reason.value}"
    return Outcome(result=None, error=TaskError(kind=reason.value, message=message))
