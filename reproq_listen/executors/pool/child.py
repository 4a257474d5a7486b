"""One child of the pool, as a state machine driven by the event loop: its tasks, and how it is stopped."""

import asyncio
import enum
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

import msgspec

from reproq_listen.executors.admission import time_limit
from reproq_listen.executors.pool.attempt import Place, PoolAttempt
from reproq_listen.executors.pool.channels import ChildChannels
from reproq_listen.executors.pool.outcome import outcome_of_exit, outcome_of_record
from reproq_listen.executors.process.exits import Exit, ExitWatch, signal_group
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.model import CapturedOutput, ClaimedTask, ExecutorSettings, Outcome, ResourceUsage, StopReason
from reproq_listen.protocol import pool as protocol

_MIN_LINGER = timedelta(seconds=1)


class ChildState(enum.Enum):
    """SERVING → RETIRING (asked to end) → TERMINATING (SIGTERM sent) → KILLING (SIGKILL sent) → ENDED (reaped).

    States may be skipped, never taken backwards.
    """

    SERVING = 1
    RETIRING = 2
    TERMINATING = 3
    KILLING = 4
    ENDED = 5


class Pool(Protocol):
    """What a child calls."""

    def attempt_ended(self, attempt: PoolAttempt, outcome: Outcome, seconds: float) -> None:
        """An attempt is over, and took this time."""

    def metadata_came(self, task: ClaimedTask, body: bytes) -> None:
        """A task has saved metadata: a JSON object, not checked yet."""

    def request_came(self, task: ClaimedTask, body: bytes, reply: Callable[[bytes], None]) -> None:
        """A task asks; `reply` is to be called once."""

    def output_came(self, pid: int, output: CapturedOutput) -> None:
        """Output has come that belongs to no known task."""

    def attempts_returned(self, attempts: Sequence[PoolAttempt]) -> None:
        """These attempts have not been started, and will not be started by the child."""

    def child_polled(self, child: "PoolChild") -> None:
        """The child may have room again, or has ended."""


class PoolChild:
    """Owns the child from its fork to its reaping, its channels, its timer, and the attempts assigned to it."""

    def __init__(
        self,
        pool: Pool,
        channels: ChildChannels,
        pid: int,
        settings: ExecutorSettings,
        oom: OomCounter,
        reap: Callable[[Callable[[Exit], None]], None],
    ) -> None:
        """`reap` reaps the dead child and hands on how it ended; it is called once."""
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._channels = channels
        self._settings = settings
        self._oom = oom
        self._oom_kills = oom.read()
        self._reap = reap
        self.pid = pid
        self.state = ChildState.SERVING
        self.assigned: dict[int, PoolAttempt] = {}
        """By slot, in the order in which the child runs them. At most the first has been started."""
        self.tasks = 0
        """Assigned so far, without those taken back."""
        self.load = 0.0
        """Expected seconds of the assigned attempts."""
        self.progress = self.started_at = self._loop.time()
        """Since when the first assigned attempt can have been running (monotonic seconds)."""
        self._reported_cpu = 0.0
        self._last_slot = 0
        self._batches = 0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_of: PoolAttempt | None = None
        self._problem: str | None = None
        self._is_request_open = False
        self.was_retired = False
        """The pool has asked it to end."""
        self.has_ended = asyncio.Event()
        self._watch = ExitWatch(self._loop, pid, self._died)

    @property
    def room(self) -> int:
        """The number of tasks that it may be assigned now."""
        if self.state is not ChildState.SERVING:
            return 0
        room = protocol.MAX_TASKS_PER_BATCH - len(self.assigned)
        limit = self._settings.max_tasks_per_child
        return min(room, limit - self.tasks) if limit else room

    def assign(self, attempts: Sequence[PoolAttempt], now: float) -> None:
        """Send tasks, not more than there is room for. They run one after another."""
        if not self.assigned:
            self.progress = now
            attempts[0].start()
        batch = []
        for attempt in attempts:
            self._last_slot = (self._last_slot + 1) & 0xFFFFFFFF
            self.assigned[self._last_slot] = attempt
            attempt.place = Place.ASSIGNED
            attempt.child = self
            attempt.assigned_at = now
            self.load += attempt.estimate
            batch.append((self._last_slot, attempt.task, attempt.spec))
        self.tasks += len(attempts)
        self._batches += 1
        self._channels.send_batch(self._batches, batch)

    def poll(self) -> None:
        """Read what the child has sent, and tell the pool."""
        self._read()
        if self.state is not ChildState.ENDED:
            self._consider_retiring()
            self._pool.child_polled(self)

    def take_back(self) -> None:
        """Return to the pool what has not been started. Then at most one attempt is left: the running one."""
        count = min(self._channels.take_back(), len(self.assigned))
        if count:
            self._return([self.assigned.popitem()[1] for _ in range(count)][::-1])

    def _return(self, attempts: Sequence[PoolAttempt]) -> None:
        self.tasks -= len(attempts)
        for attempt in attempts:
            self.load -= attempt.estimate
            attempt.place = Place.WAITING
            attempt.child = None
        self._pool.attempts_returned(attempts)

    def settle(self) -> None:
        """Take back what has not been started, and read what has ended: what is left is running.

        The pool is not asked for more tasks, so no other attempt starts before the loop's next turn.
        """
        self.take_back()
        self._read()

    def watch_time(self, now: float) -> None:
        """Set a timer to the time limit of the attempt that is left and takes long."""
        attempt = next(iter(self.assigned.values()))
        if self._deadline_of is not attempt and self.state in (ChildState.SERVING, ChildState.RETIRING):
            self._deadline_of = attempt
            limit = time_limit(attempt.task, self._settings.exec_timeout)
            due = self.progress + limit.total_seconds()
            self._set_timer(max(0.0, due - now), lambda: self._time_is_over(attempt))

    def stop(self, attempt: PoolAttempt, reason: StopReason) -> None:
        """Stop the attempt that `settle` has left: SIGTERM to the group, SIGKILL after the grace."""
        attempt.stopped = attempt.stopped or reason
        if self.state in (ChildState.SERVING, ChildState.RETIRING):
            self._terminate()

    def kill(self) -> None:
        """End the child without grace."""
        if self.state.value < ChildState.KILLING.value:
            self._move(ChildState.KILLING)
            signal_group(self.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Let the child end: now, or when its running attempt has ended."""
        self.was_retired = True
        self.take_back()
        if self.state is ChildState.SERVING:
            self._move(ChildState.RETIRING)
        if not self.assigned and self.state is ChildState.RETIRING:
            self._channels.close_socket()
            self._set_timer(max(self._settings.grace, _MIN_LINGER).total_seconds(), self._terminate)

    def _move(self, state: ChildState) -> None:
        assert state.value > self.state.value, f"a child cannot go from {self.state.name} to {state.name}"
        self.state = state

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self._loop.call_later(seconds, action)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_over(self, attempt: PoolAttempt) -> None:
        self._timer = None
        self.settle()
        if attempt in self.assigned.values() and self.state in (ChildState.SERVING, ChildState.RETIRING):
            self.stop(attempt, StopReason.TIMEOUT)

    def _terminate(self) -> None:
        self._move(ChildState.TERMINATING)
        signal_group(self.pid, signal.SIGTERM)
        signal_group(self.pid, signal.SIGCONT)  # a stopped process handles no SIGTERM
        self._set_timer(self._settings.grace.total_seconds(), self.kill)

    def _consider_retiring(self) -> None:
        if self.assigned:
            return
        if self._deadline_of is not None and self.state in (ChildState.SERVING, ChildState.RETIRING):
            self._deadline_of = None
            self._clear_timer()
        limit = self._settings.max_tasks_per_child
        is_used_up = bool(limit) and self.tasks >= limit
        is_old = self._loop.time() - self.started_at > self._settings.max_child_age.total_seconds()
        if self.state is ChildState.RETIRING or (self.state is ChildState.SERVING and (is_old or is_used_up)):
            self.retire()
        elif self.state is ChildState.TERMINATING:
            self._channels.close_socket()  # it has nothing more to send

    def _read(self) -> None:
        """Take all records. Other bytes cost the child its life; ends that came before them count.

        Raw output is held while a task runs: if the child dies, it belongs to that task.
        """
        records: list[protocol.Record] = []
        try:
            records.extend(self._channels.records(self._settings.max_stdout_bytes))
        except ValueError as error:
            self._problem = f"the child broke the protocol of the pool: {error}"
        before = len(self.assigned)
        for record in records:
            self._take(*record)
        if self.state.value < ChildState.KILLING.value and not 0 < before == len(self.assigned):
            self._hand_over_output()
        if self._problem is not None:
            self.kill()

    def _take(self, kind: int, slot: int, wall: int, cpu: int, body: bytes) -> None:
        if kind == protocol.RETIRING:
            if self.state is ChildState.SERVING:
                self._move(ChildState.RETIRING)
            self.take_back()
            if slot in self.assigned:
                self._return([self.assigned.pop(slot)])
            return
        if slot != next(iter(self.assigned), None):
            if kind in protocol.ENDS:
                self._problem = f"the child broke the protocol of the pool: slot {slot} has ended, but does not run"
            return  # a thread of a task that has ended was late
        attempt = self.assigned[slot]
        if kind in protocol.ENDS:
            del self.assigned[slot]
            self.load = self.load - attempt.estimate if self.assigned else 0.0
            self.progress = self._loop.time()
            following = next(iter(self.assigned.values()), None)
            if following is not None:
                following.start()
            usage = ResourceUsage(wall // 1000 / 1e6, cpu // 1000 / 1e6)
            self._reported_cpu += usage.cpu_seconds
            outcome = outcome_of_record(attempt, kind, body, usage, self._settings.exec_timeout)
            self._pool.attempt_ended(attempt, outcome, usage.wall_seconds)
        elif kind == protocol.METADATA:
            self._pool.metadata_came(attempt.task, body)
        elif kind == protocol.REQUEST:
            self._ask(attempt, body)
        else:
            attempt.print(kind, body)

    def _ask(self, attempt: PoolAttempt, body: bytes) -> None:
        """Hand on a request. Another one before the reply breaks the protocol, and gets no reply."""
        if not self._is_request_open:
            self._is_request_open = True
            self._pool.request_came(attempt.task, body, self._reply)

    def _reply(self, body: bytes) -> None:
        self._is_request_open = False
        self._channels.send_reply(body)

    def _died(self) -> None:
        """The process has ended, and is not reaped yet."""
        self._clear_timer()
        if self.state.value < ChildState.KILLING.value:
            self._move(ChildState.KILLING)
        signal_group(self.pid, signal.SIGKILL)
        self.take_back()
        self._read()
        self._channels.finish()
        self._reap(self._reaped)

    def _reaped(self, exit_: Exit) -> None:
        self._move(ChildState.ENDED)
        exit_ = msgspec.structs.replace(exit_, cpu_seconds=max(0.0, exit_.cpu_seconds - self._reported_cpu))
        self._hand_over_output()
        limit, saw_oom_kill = self._settings.exec_timeout, self._oom.read() > self._oom_kills
        for attempt in list(self.assigned.values()):
            seconds = self._loop.time() - self.progress
            outcome = outcome_of_exit(attempt, exit_, seconds, limit, self._problem, saw_oom_kill=saw_oom_kill)
            self._pool.attempt_ended(attempt, outcome, seconds)
        self.assigned.clear()
        self._channels.close()
        self.has_ended.set()
        self._pool.child_polled(self)

    def _hand_over_output(self) -> None:
        output = self._channels.take_raw_output()
        if output is None:
            return
        running = next(iter(self.assigned.values()), None)
        if running is not None and self.state is ChildState.ENDED:
            running.print(protocol.STDERR, output.head + output.tail)
        else:
            self._pool.output_came(self.pid, output)
