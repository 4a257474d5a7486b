"""One attempt: a child process from its start to its outcome, as a state machine driven by the event loop."""

import asyncio
import enum
import signal
from collections.abc import Callable
from datetime import timedelta

import msgspec
from msgspec import Struct

from reproq_listen.executors.outcome import ExitReport, outcome_of
from reproq_listen.executors.process.child import Child
from reproq_listen.executors.process.exits import Exit, ExitWatch, signal_group
from reproq_listen.executors.process.pipes import Frame, Output, Reader, Writer
from reproq_listen.model import Outcome, StopReason, TaskError

_MIN_LINGER = timedelta(seconds=1)


class State(enum.Enum):
    """STARTING → RUNNING → TERMINATING (SIGTERM sent) → KILLING (SIGKILL sent) → REAPING (dead) → ENDED (reaped)."""

    STARTING = enum.auto()
    RUNNING = enum.auto()
    TERMINATING = enum.auto()
    KILLING = enum.auto()
    REAPING = enum.auto()
    ENDED = enum.auto()


_NEXT = {
    State.STARTING: {State.RUNNING, State.ENDED},
    State.RUNNING: {State.TERMINATING, State.KILLING, State.REAPING},
    State.TERMINATING: {State.KILLING, State.REAPING},
    State.KILLING: {State.REAPING},
    State.REAPING: {State.ENDED},
    State.ENDED: set[State](),
}


class Limits(Struct, frozen=True):
    """How long an attempt may take, and how much it may say."""

    time: timedelta
    grace: timedelta
    result_bytes: int
    stdout_bytes: int
    stderr_bytes: int


class AttemptHooks(Struct, frozen=True):
    """What others do for an attempt. None of it may raise."""

    noted: Callable[[bytes], None]
    """Told what the task says of itself while it runs."""
    saw_oom_kill: Callable[[], bool]
    """Asked once of a child that SIGKILL has ended: whether it may have been the kernel's, for want of memory."""
    before_reaping: Callable[[], None]
    """Called while the pid still belongs to the child."""
    after_reaping: Callable[[], None]
    """Called before the outcome is given."""


class Attempt:
    """A child and what it says. Owns the process, its pipes and its timers until the outcome is there.

    Everything happens in callbacks of the loop: nobody has to wait for an attempt to make it go on, and a
    cancelled `wait()` changes nothing about it. Timers are monotonic.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._state = State.STARTING
        self._stopped: StopReason | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._call_off: Callable[[], object] = lambda: None

    @property
    def state(self) -> State:
        return self._state

    async def wait(self) -> Outcome:
        """Give the outcome as soon as the child is reaped and its whole group killed.

        May be awaited by several, again and again. Cancelling it leaves the child running: call `stop`.
        """
        return await asyncio.shield(self._outcome)

    def stop(self, reason: StopReason) -> None:
        """End the attempt: SIGTERM to the group, SIGKILL after the grace. Only the first call counts.

        The outcome's kind is then the reason's, unless a good result comes first.
        """
        if self._state is State.RUNNING:
            self._stopped = reason
            self._terminate()
        elif self._state is State.STARTING:
            self._stopped = self._stopped or reason
            self._call_off()

    def kill(self) -> None:
        """Leave out what is left of the grace of a stop; without one before, stop for shutdown, without grace."""
        if self._state in (State.RUNNING, State.TERMINATING):
            self._stopped = self._stopped or StopReason.SHUTDOWN
            self._kill()
        else:
            self.stop(StopReason.SHUTDOWN)

    def starting(self, call_off: Callable[[], object]) -> None:
        """The child is on its way; `call_off` is called if it is not wanted any more. Then call `called_off`."""
        self._call_off = call_off

    def called_off(self) -> None:
        """End an attempt that was stopped before there was a child."""
        assert self._stopped is not None
        message = "the task was stopped before there was a process for it"
        self.refuse(TaskError(kind=self._stopped.value, message=message))

    def break_off(self, error: Exception) -> None:
        """End an attempt that could not be started for a fault of ours, which `wait` raises."""
        self._move(State.ENDED)
        self._outcome.set_exception(error)

    def refuse(self, error: TaskError) -> None:
        """End an attempt for which no process was started."""
        self._move(State.ENDED)
        self._outcome.set_result(Outcome(result=None, error=error))

    def begin(self, child: Child, payload: bytes, limits: Limits, care: AttemptHooks) -> None:
        """Take over a started child and feed it."""
        self._move(State.RUNNING)
        self._began = self._loop.time()
        self._child = child
        self._limits = limits
        self._hooks = care
        self._stderr = _kept(limits.stderr_bytes)
        self._readers = [Reader(self._loop, child.stderr, self._stderr.feed)]
        if child.result >= 0:
            self._stdout = _kept(limits.stdout_bytes)
            self._frame: Frame | None = Frame(limits.result_bytes, self._result_is_here, care.noted)
            self._readers.append(Reader(self._loop, child.result, self._frame.feed))
        else:
            self._stdout = Output(limits.result_bytes, 1)
            self._frame = None
        self._readers.append(Reader(self._loop, child.stdout, self._stdout.feed))
        self._writer = Writer(self._loop, child.stdin, payload)
        self._watch = ExitWatch(self._loop, child.pid, self._child_ended)
        self._set_timer(limits.time, lambda: self.stop(StopReason.TIMEOUT))

    def _move(self, state: State) -> None:
        assert state in _NEXT[self._state], f"an attempt cannot go from {self._state.name} to {state.name}"
        self._state = state

    def _set_timer(self, pause: timedelta, action: Callable[[], None]) -> None:
        """One timer is enough: each state waits for one thing besides the child's end."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(pause.total_seconds(), action)

    def _result_is_here(self) -> None:
        """The task is done; now its process has a little time to end by itself."""
        if self._state is State.RUNNING:
            self._set_timer(max(self._limits.grace, _MIN_LINGER), self._terminate)

    def _terminate(self) -> None:
        self._move(State.TERMINATING)
        signal_group(self._child.pid, signal.SIGTERM)
        signal_group(self._child.pid, signal.SIGCONT)  # a stopped process must be woken to see it
        self._set_timer(self._limits.grace, self._kill)

    def _kill(self) -> None:
        self._move(State.KILLING)
        signal_group(self._child.pid, signal.SIGKILL)

    def _child_ended(self) -> None:
        """Kill what is left of the group, collect what was said, and reap."""
        try:
            self._move(State.REAPING)
            if self._timer is not None:
                self._timer.cancel()
            signal_group(self._child.pid, signal.SIGKILL)
            for reader in self._readers:
                reader.finish()
            self._writer.close()
            self._wall_seconds = self._loop.time() - self._began
            self._hooks.before_reaping()
            self._child.reap(self._reaped)
        except BaseException as error:
            self._outcome.set_exception(error)
            raise

    def _reaped(self, end: Exit) -> None:
        self._move(State.ENDED)
        self._hooks.after_reaping()
        body, problem = self._what_was_said()
        outcome = outcome_of(
            ExitReport(
                end=end,
                wall_seconds=self._wall_seconds,
                body=body,
                body_problem=problem,
                stdout=self._stdout.said(),
                stderr=self._stderr.said(),
                stopped=self._stopped,
                time_limit_seconds=self._limits.time.total_seconds(),
                saw_oom_kill=end.status == -signal.SIGKILL and self._hooks.saw_oom_kill(),
            )
        )
        self._outcome.set_result(msgspec.structs.replace(outcome, is_result_on_stdout=self._frame is None))

    def _what_was_said(self) -> tuple[bytes | None, str | None]:
        if self._frame is not None:
            try:
                return self._frame.body(), None
            except ValueError as error:
                return None, str(error)
        limit = self._limits.result_bytes
        if self._stdout.total > limit:
            return None, f"it has {self._stdout.total} bytes; the limit is {limit} (max_stdout_bytes)"
        return self._stdout.end(limit), None


def _kept(limit: int) -> Output:
    """A quarter of what is kept is the beginning: where things went wrong is more often near the end."""
    return Output(limit // 4, max(limit - limit // 4, 1))
