"""One child of the pool, as a state machine driven by the event loop: what it has in hand, how it is stopped."""

import asyncio
import enum
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import islice
from typing import Protocol

import msgspec
from msgspec import Struct

from reproq_listen.executors.pool import outcome as outcomes
from reproq_listen.executors.pool.attempt import NOTHING, Place, PoolAttempt
from reproq_listen.executors.pool.channels import ChildChannels
from reproq_listen.executors.pool.isolation import UnbatchablePaths
from reproq_listen.executors.process.exits import Exit, ExitWatch, signal_group
from reproq_listen.model import ClaimedTask, Outcome, ResourceUsage, StopReason
from reproq_listen.protocol import pool as protocol
from reproq_listen.protocol.envelope import STDERR_TAIL_BYTES, clean_end

_MIN_LINGER = timedelta(seconds=1)
_YOUNG_SECONDS = 5.0


class State(enum.Enum):
    """SERVING → RETIRING (told to end) → TERMINATING (SIGTERM sent) → KILLING (SIGKILL sent) → ENDED (reaped).

    States may be skipped, never taken backwards.
    """

    SERVING = 1
    RETIRING = 2
    TERMINATING = 3
    KILLING = 4
    ENDED = 5


class Limits(Struct, frozen=True):
    """What holds for all children of a pool."""

    grace: timedelta
    exec_timeout: timedelta
    max_result_bytes: int
    max_tasks: int
    """0: any number."""
    max_age: timedelta


class Pool(Protocol):
    """What a child tells its pool."""

    unbatchable: UnbatchablePaths

    def ended(self, attempt: PoolAttempt, outcome: Outcome, seconds: float) -> None:
        """An attempt is over, after so much time of its own."""

    def noted(self, task: ClaimedTask, note: bytes) -> None:
        """A task has said something of itself: a JSON object, unless it is up to no good."""

    def came_back(self, attempts: Sequence[PoolAttempt]) -> None:
        """These have not been started, and will not be here."""

    def has_looked(self, child: "PoolChild") -> None:
        """The child may have room again, or has ended."""

    def may_fork_again(self) -> None:
        """A pause after a failure is over."""

    def saw_oom_kill(self, since: int) -> bool: ...


class PoolChild:
    """Owns the child from its fork to its reaping, its channels, its timer, and the attempts that it was given."""

    def __init__(
        self,
        pool: Pool,
        channels: ChildChannels,
        pid: int,
        limits: Limits,
        oom_kills: int,
        reap: Callable[[Callable[[Exit], None]], None],
    ) -> None:
        """`reap` reaps the dead child and tells how it ended; it is called once."""
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._channels = channels
        self._limits = limits
        self._oom_kills = oom_kills
        self._reap = reap
        self.pid = pid
        self.state = State.SERVING
        self.given: dict[int, PoolAttempt] = {}
        """By slot, in the order in which the child takes them. At most the first has been started."""
        self.tasks = 0
        """Given and not taken back."""
        self.load = 0.0
        """Seconds that `given` should take."""
        self.progress = self.started_at = self._loop.time()
        """Monotonic seconds: since when the first of `given` can have been running."""
        self._known_cpu = 0.0
        self._slots = 0
        self._batches = 0
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_of: PoolAttempt | None = None
        self._problem: str | None = None
        self.was_retired = False
        """Told by the pool to end."""
        self.has_ended = asyncio.Event()
        self.last_words = ""
        """What it wrote to its real standard streams last, once it has ended."""
        self._watch = ExitWatch(self._loop, pid, self._died)

    def is_young(self, now: float) -> bool:
        """Whether it is too young for its end to be a matter of course."""
        return now - self.started_at < _YOUNG_SECONDS

    @property
    def room(self) -> int:
        """How many more tasks it may be given."""
        if self.state is not State.SERVING:
            return 0
        room = protocol.MAX_TASKS_PER_BATCH - len(self.given)
        most = self._limits.max_tasks
        return min(room, most - self.tasks) if most else room

    def give(self, attempts: Sequence[PoolAttempt], now: float) -> None:
        """Hand over tasks, no more than there is room for. They run one after another."""
        if not self.given:
            self.progress = now
        batch = []
        for attempt in attempts:
            self._slots = (self._slots + 1) & 0xFFFFFFFF
            self.given[self._slots] = attempt
            attempt.place = Place.GIVEN
            attempt.child = self
            attempt.given_at = now
            self.load += attempt.estimate
            batch.append((self._slots, attempt.task, attempt.spec))
        self.tasks += len(attempts)
        self._batches += 1
        self._channels.give(self._batches, batch)

    def look(self) -> None:
        """Take what the child has said. Ends of attempts are told to the pool."""
        self._read()
        if self.state is not State.ENDED:
            self._consider_retiring()
            self._pool.has_looked(self)

    def take_back(self) -> None:
        """Give the pool what has not been started. Afterwards at most one attempt is left: the one that runs."""
        count = min(self._channels.take_back(), len(self.given))
        if count:
            self._hand_back([self.given.popitem()[1] for _ in range(count)][::-1])

    def _hand_back(self, attempts: Sequence[PoolAttempt]) -> None:
        self.tasks -= len(attempts)
        for attempt in attempts:
            self.load -= attempt.estimate
            attempt.place = Place.WAITING
            attempt.child = None
        self._pool.came_back(attempts)

    def settle(self) -> None:
        """Take back what has not been started, and take what has ended: what is left now runs, and nothing can start
        behind it. The pool is not asked for more tasks, so this holds until the loop turns."""
        self.take_back()
        self._read()

    def watch_time(self, now: float) -> None:
        """Only one attempt is left and it takes its time: from now on a timer holds its limit."""
        attempt = next(iter(self.given.values()))
        if self._deadline_of is not attempt and self.state in (State.SERVING, State.RETIRING):
            self._deadline_of = attempt
            due = self.progress + self._time_limit(attempt).total_seconds()
            self._set_timer(max(0.0, due - now), lambda: self._time_is_over(attempt))

    def stop(self, attempt: PoolAttempt, reason: StopReason) -> None:
        """Stop the attempt that `settle` has left: SIGTERM to the group, SIGKILL after the grace."""
        attempt.stopped = attempt.stopped or reason
        if self.state in (State.SERVING, State.RETIRING):
            self._terminate()

    def kill(self) -> None:
        """End the child without grace."""
        if self.state.value < State.KILLING.value:
            self._move(State.KILLING)
            signal_group(self.pid, signal.SIGKILL)

    def retire(self) -> None:
        """Let the child end: now, or when what it runs has ended."""
        self.was_retired = True
        self.take_back()
        if self.state is State.SERVING:
            self._move(State.RETIRING)
        if not self.given and self.state is State.RETIRING:
            self._channels.close_link()
            self._set_timer(max(self._limits.grace, _MIN_LINGER).total_seconds(), self._terminate)

    def _move(self, state: State) -> None:
        assert state.value > self.state.value, f"a child cannot go from {self.state.name} to {state.name}"
        self.state = state

    def _set_timer(self, seconds: float, action: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self._loop.call_later(seconds, action)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_limit(self, attempt: PoolAttempt) -> timedelta:
        seconds = attempt.task.timeout_seconds
        limit = self._limits.exec_timeout
        return min(timedelta(seconds=seconds), limit) if seconds > 0 else limit

    def _time_is_over(self, attempt: PoolAttempt) -> None:
        self._timer = None
        self.settle()
        if attempt in self.given.values() and self.state in (State.SERVING, State.RETIRING):
            self.stop(attempt, StopReason.TIMEOUT)

    def _terminate(self) -> None:
        self._move(State.TERMINATING)
        signal_group(self.pid, signal.SIGTERM)
        signal_group(self.pid, signal.SIGCONT)  # a stopped process must be woken to see it
        self._set_timer(self._limits.grace.total_seconds(), self.kill)

    def _consider_retiring(self) -> None:
        if self.given:
            return
        if self._deadline_of is not None and self.state in (State.SERVING, State.RETIRING):
            self._deadline_of = None
            self._clear_timer()
        most = self._limits.max_tasks
        is_old = self._loop.time() - self.started_at > self._limits.max_age.total_seconds()
        if self.state is State.RETIRING or (self.state is State.SERVING and (is_old or (most and self.tasks >= most))):
            self.retire()
        elif self.state is State.TERMINATING:
            self._channels.close_link()  # it has said all that it had to say

    def _read(self) -> None:
        """Take all that can be read; what cannot costs the child its life, but nobody an end that came before."""
        records: list[protocol.Record] = []
        try:
            records.extend(self._channels.records(self._limits.max_result_bytes))
        except ValueError as error:
            self._problem = f"the child broke the protocol of the pool: {error}"
        if records:
            self._attribute_raw_output(sum(record[0] in protocol.ENDS for record in records))
        for record in records:
            self._take(*record)
        if self._problem is not None:
            self.kill()

    def _take(self, kind: int, slot: int, wall: int, cpu: int, body: bytes) -> None:
        if kind == protocol.RETIRING:
            if self.state is State.SERVING:
                self._move(State.RETIRING)
            self.take_back()
            if slot in self.given:
                self._hand_back([self.given.pop(slot)])
            return
        if slot != next(iter(self.given), None):
            if kind in protocol.ENDS:
                self._problem = f"the child broke the protocol of the pool: slot {slot} has ended, but does not run"
            return  # of a task that has ended: one of its threads was late to say it
        attempt = self.given[slot]
        if kind in protocol.ENDS:
            del self.given[slot]
            self.load = self.load - attempt.estimate if self.given else 0.0
            self.progress = self._loop.time()
            account = ResourceUsage(wall // 1000 / 1e6, cpu // 1000 / 1e6)
            self._known_cpu += account.cpu_seconds
            self._pool.ended(attempt, self._outcome(attempt, kind, body, account), account.wall_seconds)
        elif kind == protocol.METADATA:
            self._pool.noted(attempt.task, body)
        else:
            attempt.print(kind, body)

    def _outcome(self, attempt: PoolAttempt, kind: int, body: bytes, account: ResourceUsage) -> Outcome:
        if kind == protocol.RETURNED:
            return outcomes.of_value(attempt, body, account)
        return outcomes.of_failure(attempt, body, account, self._time_limit(attempt))

    def _attribute_raw_output(self, ended: int) -> None:
        """What came past sys.stdout and sys.stderr is of one of those that have ended now (so many), or of the next."""
        if not self.given:
            return
        raw_output = self._channels.take_raw_output()
        unbatchable = self._pool.unbatchable
        if raw_output is not None:
            unbatchable.heard(list(islice(self.given.values(), ended + 1))).hear(protocol.STDERR, raw_output)
        elif unbatchable:
            for attempt in islice(self.given.values(), ended):
                unbatchable.was_quiet(attempt)

    def _died(self) -> None:
        """The process has ended, and nobody has reaped it."""
        self._clear_timer()
        if self.state.value < State.KILLING.value:
            self._move(State.KILLING)
        signal_group(self.pid, signal.SIGKILL)
        self.take_back()
        self._read()
        self._channels.finish()
        self._reap(self._ended)

    def _ended(self, end: Exit) -> None:
        self._move(State.ENDED)
        end = msgspec.structs.replace(end, cpu_seconds=max(0.0, end.cpu_seconds - self._known_cpu))
        self._attribute_raw_output(0)
        for attempt in list(self.given.values()):
            seconds = self._loop.time() - self.progress
            limit, oom = self._time_limit(attempt), self._pool.saw_oom_kill(self._oom_kills)
            outcome = outcomes.of_end(attempt, end, seconds, limit, self._problem, saw_oom_kill=oom)
            self._pool.ended(attempt, outcome, seconds)
        self.given.clear()
        words = self._channels.take_raw_output() or NOTHING
        self.last_words = clean_end((words.head + words.tail).decode(errors="replace"), STDERR_TAIL_BYTES)
        self._channels.close()
        self.has_ended.set()
        self._pool.has_looked(self)
