"""One attempt in the pool: a task on its way through somebody else's process."""

import enum
from collections.abc import Callable
from typing import Protocol

from reproq_listen.executors.process.pipes import Output
from reproq_listen.model import CapturedOutput, ClaimedTask, Outcome, StopReason, TaskError

NOTHING = CapturedOutput(b"", b"", 0)
_HEAD_BYTES = _TAIL_BYTES = 32 << 10


class Place(enum.Enum):
    """WAITING (in the pool's hand) → GIVEN (to a child; may come back to WAITING) → ENDED."""

    WAITING = enum.auto()
    GIVEN = enum.auto()
    ENDED = enum.auto()


class Owner(Protocol):
    """What stops an attempt, wherever it is."""

    def stop(self, attempt: "PoolAttempt", reason: StopReason) -> None: ...

    def kill(self, attempt: "PoolAttempt") -> None: ...


class PoolAttempt:
    """A task, whom to tell, and where it is. Made and moved by the pool alone."""

    __slots__ = (
        "child",
        "ended",
        "estimate",
        "given_at",
        "owner",
        "path",
        "place",
        "printed",
        "since",
        "spec",
        "stopped",
        "task",
    )

    def __init__(
        self, owner: Owner, task: ClaimedTask, spec: bytes, ended: Callable[[Outcome], None], since: float
    ) -> None:
        """`ended` is called once. An outcome of the kind `shutdown` means: not run to its end, to be given back."""
        self.owner = owner
        self.task = task
        self.path = task.task_path or ""
        self.spec = spec
        self.ended = ended
        self.place = Place.WAITING
        self.since = since
        """Monotonic seconds: when it came to the pool."""
        self.given_at = since
        """When it was given to a child last."""
        self.stopped: StopReason | None = None
        self.child: object = None
        self.estimate = 0.0
        """Seconds that it should take, as was thought when it was given to a child."""
        self.printed: dict[int, Output] | None = None
        """By kind of record (protocol/pool.py): what it has printed."""

    def stop(self, reason: StopReason) -> None:
        """End the attempt. Only the first call counts. One that has not been started ends at once."""
        if self.place is not Place.ENDED and self.stopped is None:
            self.owner.stop(self, reason)

    def kill(self) -> None:
        """End it without grace; without a stop before, for shutdown."""
        if self.place is not Place.ENDED:
            self.owner.kill(self)

    def print(self, kind: int, data: bytes) -> None:
        """Keep what the task has printed, within bounds."""
        self._output(kind).feed(data)

    def hear(self, kind: int, said: CapturedOutput) -> None:
        """Keep what the task has printed past Python's own streams."""
        self._output(kind).take_over(said)

    def _output(self, kind: int) -> Output:
        if self.printed is None:
            self.printed = {}
        if kind not in self.printed:
            self.printed[kind] = Output(_HEAD_BYTES, _TAIL_BYTES)
        return self.printed[kind]

    def said(self, kind: int) -> CapturedOutput:
        """What it has printed."""
        output = self.printed.get(kind) if self.printed else None
        return CapturedOutput(*output.kept(), output.total) if output else NOTHING

    def end(self, outcome: Outcome) -> None:
        self.place = Place.ENDED
        self.child = None
        self.ended(outcome)


def unstarted(reason: StopReason) -> Outcome:
    """The outcome of an attempt that was stopped before it started."""
    message = f"the task was stopped before it started: {reason.value}"
    return Outcome(result=None, error=TaskError(kind=reason.value, message=message))
