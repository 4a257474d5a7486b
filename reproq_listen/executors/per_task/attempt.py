"""One attempt: a child process from its start to its outcome, as a state machine driven by the event loop."""

import asyncio
import enum
import os
import signal
from collections.abc import Callable
from datetime import timedelta

import msgspec
from msgspec import Struct

from reproq_listen.executors.outcome import ExitReport, outcome_of
from reproq_listen.executors.process.child import Child
from reproq_listen.executors.process.exits import Exit, signal_group
from reproq_listen.executors.process.pipes import FrameDecoder, OutputBuffer, PipeReader, PipeWriter, ReplyWriter
from reproq_listen.model import Outcome, StopReason, TaskError
from reproq_listen.protocol.executor import REPLY_MAGIC, frame

_MIN_LINGER = timedelta(seconds=1)
_UNWATCHED_SECONDS = 0.01
"""What an attempt writes in this time waits in its pipes: for a shorter one, to watch them is a fifth of the work."""


class AttemptState(enum.Enum):
    """STARTING → RUNNING → TERMINATING (SIGTERM sent) → KILLING (SIGKILL sent) → REAPING (dead) → ENDED (reaped)."""

    STARTING = enum.auto()
    RUNNING = enum.auto()
    TERMINATING = enum.auto()
    KILLING = enum.auto()
    REAPING = enum.auto()
    ENDED = enum.auto()


_NEXT = {
    AttemptState.STARTING: {AttemptState.RUNNING, AttemptState.ENDED},
    AttemptState.RUNNING: {AttemptState.TERMINATING, AttemptState.KILLING, AttemptState.REAPING},
    AttemptState.TERMINATING: {AttemptState.KILLING, AttemptState.REAPING},
    AttemptState.KILLING: {AttemptState.REAPING},
    AttemptState.REAPING: {AttemptState.ENDED},
    AttemptState.ENDED: set[AttemptState](),
}


class AttemptLimits(Struct, frozen=True):
    """How long an attempt may take, and how much output is accepted."""

    time: timedelta
    grace: timedelta
    result_bytes: int
    stdout_bytes: int
    stderr_bytes: int


class AttemptHooks(Struct, frozen=True):
    """Callbacks of an attempt. They must not raise."""

    on_metadata: Callable[[bytes], None]
    """Called with metadata that the task saves while it runs: a JSON object, not checked yet."""
    on_request: Callable[[bytes, Callable[[bytes], None]], None]
    """Called with a request of the running task, and with what sends the reply, to be called once."""
    saw_oom_kill: Callable[[], bool]
    """Called once for a child that SIGKILL has ended. Whether the kernel may have sent it, because memory ran out."""
    before_reaping: Callable[[], None]
    """Called while the pid still belongs to the child."""
    after_reaping: Callable[[], None]
    """Called before the outcome is given."""


class Attempt:
    """A child and its output. Owns the process, its pipes and its timers until the outcome is there.

    Everything happens in callbacks of the loop: an attempt goes on whether or not `wait` is awaited, and cancelling a
    `wait` changes nothing. Timers are monotonic.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._state = AttemptState.STARTING
        self._stopped: StopReason | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._launch: asyncio.Task[None] | None = None
        self._replies: ReplyWriter | None = None
        self._is_request_open = False
        self._watch_timer: asyncio.TimerHandle | None = None
        self._writer: PipeWriter | None = None
        self._readers: list[PipeReader] = []
        self._fault: Exception | None = None
        """Why the child could not be fed or watched."""

    @property
    def state(self) -> AttemptState:
        return self._state

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped from outside."""
        return self._stopped is not None

    async def wait(self) -> Outcome:
        """Give the outcome as soon as the child is reaped and its whole group killed.

        May be awaited several times. Cancelling it leaves the child running: call `stop`.
        """
        return await asyncio.shield(self._outcome)

    def stop(self, reason: StopReason) -> None:
        """End the attempt: SIGTERM to the group, SIGKILL after the grace. Only the first call counts.

        The outcome's kind is then the reason's, unless a good result comes first.
        """
        if self._state is AttemptState.RUNNING:
            self._stopped = reason
            self._terminate()
        elif self._state is AttemptState.STARTING:
            self._stopped = self._stopped or reason
            if self._launch is not None:
                self._launch.cancel()

    def kill(self) -> None:
        """Skip the rest of the grace of a stop. Without a stop before, stop for shutdown, without grace."""
        if self._state in (AttemptState.RUNNING, AttemptState.TERMINATING):
            self._stopped = self._stopped or StopReason.SHUTDOWN
            self._kill()
        else:
            self.stop(StopReason.SHUTDOWN)

    def launched_by(self, launch: asyncio.Task[None]) -> None:
        """`launch` starts the child. A stop before that cancels it; call `stopped_before_start` when it is."""
        self._launch = launch

    def stopped_before_start(self) -> None:
        """End an attempt that was stopped before it had a child."""
        assert self._stopped is not None
        message = "the task was stopped before it had a process"
        self.refuse(TaskError(kind=self._stopped.value, message=message))

    def fail(self, error: Exception) -> None:
        """End an attempt that could not be started because of a fault of ours: `wait` raises the error."""
        self._move(AttemptState.ENDED)
        self._outcome.set_exception(error)

    def refuse(self, error: TaskError) -> None:
        """End an attempt without a process."""
        self._move(AttemptState.ENDED)
        self._outcome.set_result(Outcome(result=None, error=error))

    def run(self, child: Child, payload: bytes, limits: AttemptLimits, hooks: AttemptHooks) -> None:
        """Take over a started child and feed it. Never raises: then the child is killed, and `wait` raises."""
        self._move(AttemptState.RUNNING)
        self._began = self._loop.time()
        self._child = child
        self._limits = limits
        self._hooks = hooks
        child.on_exit(self._child_ended)
        try:
            self._connect(child.preamble + payload)
        except Exception as error:  # noqa: BLE001 - a child that is not watched would keep its lease for ever
            self._fault = error
            self._kill()

    def _connect(self, data: bytes) -> None:
        """Feed the child, and watch its output and its time."""
        child, limits = self._child, self._limits
        self._writer = PipeWriter(self._loop, child.stdin, data)  # first: the child starts now
        self._stderr = _output_buffer(limits.stderr_bytes)
        sinks = [(child.stderr, self._stderr.feed)]
        if child.result >= 0:
            self._stdout = _output_buffer(limits.stdout_bytes)
            self._frames: FrameDecoder | None = FrameDecoder(
                limits.result_bytes, self._result_came, self._hooks.on_metadata, self._request_came
            )
            sinks.append((child.result, self._frames.feed))
        else:
            self._stdout = OutputBuffer(limits.result_bytes, 1)
            self._frames = None
        sinks.append((child.stdout, self._stdout.feed))
        self._readers = [PipeReader(self._loop, fd, sink, is_watching=False) for fd, sink in sinks]
        self._watch_timer = self._loop.call_later(_UNWATCHED_SECONDS, self._watch_pipes)
        self._set_timer(limits.time, lambda: self.stop(StopReason.TIMEOUT))

    def _move(self, state: AttemptState) -> None:
        assert state in _NEXT[self._state], f"an attempt cannot go from {self._state.name} to {state.name}"
        self._state = state

    def _set_timer(self, delay: timedelta, action: Callable[[], None]) -> None:
        """One timer is enough: each state waits for one thing besides the child's end."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay.total_seconds(), action)

    def _watch_pipes(self) -> None:
        for reader in self._readers:
            reader.watch()

    def _result_came(self) -> None:
        """The task is done. Its process has a little time to end by itself."""
        if self._state is AttemptState.RUNNING:
            self._set_timer(max(self._limits.grace, _MIN_LINGER), self._terminate)

    def _request_came(self, body: bytes) -> None:
        """The task waits for the reply. Another request before it breaks the protocol, and gets no reply."""
        if self._is_request_open:
            return
        self._is_request_open = True
        if self._replies is None:  # it has a descriptor of its own: the reader closes its own at the end of the stream
            self._replies = ReplyWriter(self._loop, os.dup(self._child.result))
        self._hooks.on_request(body, self._reply)

    def _reply(self, body: bytes) -> None:
        self._is_request_open = False
        assert self._replies is not None
        self._replies.write(frame(body, REPLY_MAGIC))

    def _terminate(self) -> None:
        self._move(AttemptState.TERMINATING)
        signal_group(self._child.pid, signal.SIGTERM)
        signal_group(self._child.pid, signal.SIGCONT)  # a stopped process handles no SIGTERM
        self._set_timer(self._limits.grace, self._kill)

    def _kill(self) -> None:
        self._move(AttemptState.KILLING)
        signal_group(self._child.pid, signal.SIGKILL)

    def _child_ended(self) -> None:
        """Kill what is left of the group, read the rest of the pipes, and reap."""
        try:
            self._move(AttemptState.REAPING)
            for timer in (self._watch_timer, self._timer):
                if timer is not None:
                    timer.cancel()
            signal_group(self._child.pid, signal.SIGKILL)
            for reader in self._readers:
                reader.finish()
            if self._writer is not None:
                self._writer.close()
                self._child.has_begun = not self._child.is_unread(self._writer.written)
            if self._replies is not None:
                self._replies.close()
            self._wall_seconds = self._loop.time() - self._began
            self._hooks.before_reaping()
            self._child.reap(self._reaped)
        except BaseException as error:
            self._outcome.set_exception(error)
            raise

    def _reaped(self, exit_: Exit) -> None:
        try:
            self._move(AttemptState.ENDED)
            self._hooks.after_reaping()
            if self._fault is not None:
                self._outcome.set_exception(self._fault)
            else:
                self._outcome.set_result(self._outcome_of(exit_))
        except BaseException as error:
            if not self._outcome.done():
                self._outcome.set_exception(error)
            raise

    def _outcome_of(self, exit_: Exit) -> Outcome:
        if not (self._child.has_begun or self._stopped):
            message = "the process for the task died before the task was started"
            return Outcome(result=None, error=TaskError(kind=StopReason.SHUTDOWN.value, message=message))
        body, problem = self._result_body()
        outcome = outcome_of(
            ExitReport(
                exit=exit_,
                wall_seconds=self._wall_seconds,
                body=body,
                body_problem=problem,
                stdout=self._stdout.captured(),
                stderr=self._stderr.captured(),
                stopped=self._stopped,
                time_limit_seconds=self._limits.time.total_seconds(),
                saw_oom_kill=exit_.status == -signal.SIGKILL and self._hooks.saw_oom_kill(),
            )
        )
        return msgspec.structs.replace(outcome, is_result_on_stdout=self._frames is None)

    def _result_body(self) -> tuple[bytes | None, str | None]:
        """Give what should be the envelope, or else why it cannot be one."""
        if self._frames is not None:
            try:
                return self._frames.body(), None
            except ValueError as error:
                return None, str(error)
        limit = self._limits.result_bytes
        if self._stdout.total > limit:
            return None, f"it has {self._stdout.total} bytes; the limit is {limit} (max_stdout_bytes)"
        return self._stdout.last(limit), None


def _output_buffer(limit: int) -> OutputBuffer:
    """Keep a quarter for the beginning: the reason of a failure is more often near the end."""
    return OutputBuffer(limit // 4, max(limit - limit // 4, 1))
