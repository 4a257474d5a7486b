"""The executor mode `pool`: a few warm children that serve many tasks each.

Costs per message are shared: tasks that are known to be short are sent to a child together, and their results come back
together. Waits are bounded: a task behind one that takes longer than expected is taken back within some hundredths of
a second, for another child or another worker.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from reproq_listen.errors import SettingError
from reproq_listen.executors.admission import NotAdmittedError, admit, check_settings
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import make_forkserver
from reproq_listen.executors.per_task.executor import OnMetadata, OnRequest, no_answer
from reproq_listen.executors.pool.attempt import Place, PoolAttempt, not_started
from reproq_listen.executors.pool.batching import is_quarantined, load, next_batch
from reproq_listen.executors.pool.child import ChildState, PoolChild
from reproq_listen.executors.pool.estimates import DurationEstimates
from reproq_listen.executors.pool.spawner import ChildSpawner
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.executors.start_backoff import OnPause
from reproq_listen.model import CapturedOutput, ClaimedTask, ExecutorSettings, Outcome, StopReason
from reproq_listen.protocol.executor import OUR_MODULE

_TICK_SECONDS = 0.010
_MAX_BEHIND_SECONDS = 0.020
"""A task that has not been started this long after it was assigned is taken back."""
_STUCK_SECONDS = 0.020
"""A child that takes this long for one task is assigned no others."""
_MAX_WAIT_SECONDS = 0.050
"""A task waits at most this long while all children are stuck. Then it is given back to the database."""
_MIN_LOAD_FOR_FORK_SECONDS = 0.002
_YOUNG_SECONDS = 5.0
"""A child that ends this early without having run a task has failed."""

OnOutput = Callable[[int, CapturedOutput], None]
"""Called with a child's pid and its output that belongs to no known task: of programs, or of C code."""


class PoolExecutor:
    """Owns the children, and the tasks that wait for one. One per process; bound to one event loop."""

    def __init__(
        self,
        settings: ExecutorSettings,
        concurrency: int,
        warn: Callable[[str], None],
        on_metadata: OnMetadata = lambda task, body: None,
        on_room: Callable[[], None] = lambda: None,
        on_child_output: OnOutput = lambda pid, output: None,
        on_pause: OnPause = lambda why, seconds: None,
        on_ready: Callable[[], None] = lambda: None,
        on_request: OnRequest = no_answer,
    ) -> None:
        """`warn` is called with what an operator should know and no task is to blame for, `on_room` when `room` may
        have become more, `on_pause` when no children can be started and `on_ready` when they can be again."""
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._concurrency = concurrency
        self.metadata_came = on_metadata
        self.request_came = on_request
        self.output_came = on_child_output
        self._on_room = on_room
        self._on_ready = on_ready
        cleanup = ProcessCleanup(warn)
        forkserver = make_forkserver(settings, cleanup, warn, on_pause, self._fork_again, with_pool=True)
        self._spawner = ChildSpawner(
            *(self, settings, concurrency, forkserver, cleanup, OomCounter()),
            on_pause=on_pause,
            on_started=self._child_started,
            on_retry=self._fork_again,
        )
        self._estimates = DurationEstimates()
        self._allowed_paths: set[str] = set()
        self._waiting: deque[PoolAttempt] = deque()
        self._children: set[PoolChild] = set()
        self._idle: dict[PoolChild, None] = {}
        self._stuck: set[PoolChild] = set()
        self._accepted = 0
        """Attempts that have not ended."""
        self._tick: asyncio.TimerHandle | None = None
        self._will_dispatch = False
        self._is_closing = False

    @property
    def pids(self) -> list[int]:
        """The children that are alive."""
        return [child.pid for child in self._children]

    @property
    def forkserver_pid(self) -> int | None:
        """The process that new children are forked from."""
        return self._spawner.forkserver_pid

    @property
    def control_group(self) -> str:
        """The folder of the control group around all that tasks start, or `none` and the reason."""
        return self._spawner.control_group

    def room(self, coming: int = 0) -> int:
        """Give the number of tasks to claim now. `coming`: tasks that are about to be submitted."""
        if self._is_closing or (not self._children and self._spawner.is_pausing):
            return 0
        children = len(self._children) if self._spawner.is_pausing else self._concurrency
        return self._estimates.room(children, self._accepted + coming, len(self._stuck))

    def run_if_killed(self, module: str, data: bytes) -> None:
        """If this process dies before `close`, the guard runs this module when it has killed all tasks."""
        self._spawner.run_if_killed(module, data)

    async def open(self) -> None:
        """Check everything that would make every task fail, and start some children. Raises ReproqError."""
        check_settings(self._settings)
        module = self._settings.executor_module
        if module != OUR_MODULE:
            raise SettingError(f"--executor pool runs no other module than {OUR_MODULE}; use fork for {module}")
        await self._spawner.open()
        self._fork_up_to(self._spawner.min_children)

    @property
    def running(self) -> int:
        """The number of tasks that run. Others may have been submitted, and wait."""
        return sum(bool(child.assigned) for child in self._children)

    def submit(
        self, task: ClaimedTask, on_end: Callable[[Outcome], None], on_start: Callable[[], None] | None = None
    ) -> PoolAttempt:
        """Accept a task. `on_start` and `on_end` are called later on the loop: see PoolAttempt.

        Never raises for a fault of the task: then its outcome has the reason.
        """
        attempt = PoolAttempt(self, task, b"", on_end, on_start, self._loop.time())
        self._accepted += 1
        try:
            attempt.spec = admit(task, self._settings, self._allowed_paths)
        except NotAdmittedError as refusal:
            self._loop.call_soon(self._end_without_child, attempt, Outcome(result=None, error=refusal.error))
        else:
            self._waiting.append(attempt)
            self._dispatch_soon()
        return attempt

    def stop(self, attempt: PoolAttempt, reason: StopReason) -> None:
        """See PoolAttempt.stop."""
        attempt.stopped = reason
        child = self._child_to_stop(attempt, reason)
        if child is not None:
            child.stop(attempt, reason)

    def kill(self, attempt: PoolAttempt) -> None:
        """See PoolAttempt.kill."""
        attempt.stopped = attempt.stopped or StopReason.SHUTDOWN
        child = self._child_to_stop(attempt, attempt.stopped)
        if child is not None:
            child.kill()

    async def reload(self) -> None:
        """Fork from a new forkserver from now on; running attempts end in their old children."""
        await self._spawner.reload()
        for child in list(self._children):
            self._idle.pop(child, None)
            child.retire()
        self._fork_up_to(self._spawner.min_children)

    async def close(self) -> None:
        """Kill what still runs, let the idle children end, and wait until all have ended."""
        self._is_closing = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        for attempt in list(self._waiting):
            attempt.stop(StopReason.SHUTDOWN)
        await self._spawner.stop_starting()
        children = list(self._children)
        for child in children:
            if child.assigned:
                child.kill()
            else:
                child.retire()
        await asyncio.gather(*(child.has_ended.wait() for child in children))
        await self._spawner.close()

    # What children call: the protocol `Pool` of child.py. metadata_came, request_came, output_came belong to it, too.

    def attempt_ended(self, attempt: PoolAttempt, outcome: Outcome, seconds: float) -> None:
        self._spawner.succeeded()
        self._estimates.task_took(attempt.path, seconds)
        self._end(attempt, outcome)

    def attempts_returned(self, attempts: Sequence[PoolAttempt]) -> None:
        for attempt in reversed(attempts):
            if attempt.stopped is None:
                self._waiting.appendleft(attempt)
            else:
                self._end_without_child(attempt, not_started(attempt.stopped))
        self._dispatch_soon()

    def child_polled(self, child: PoolChild) -> None:
        if not self._is_stuck(child, self._loop.time()):
            self._stuck.discard(child)
        if child.state is ChildState.ENDED:
            self._remove_child(child)
        elif child.room and not child.assigned:
            self._idle[child] = None
        if self._waiting:
            self._dispatch()
        self._on_room()

    def _end(self, attempt: PoolAttempt, outcome: Outcome) -> None:
        self._accepted -= 1
        attempt.end(outcome)

    def _end_without_child(self, attempt: PoolAttempt, outcome: Outcome) -> None:
        """As `_end`; no poll of a child follows that would call `on_room`."""
        self._end(attempt, outcome)
        self._on_room()

    def _child_to_stop(self, attempt: PoolAttempt, reason: StopReason) -> PoolChild | None:
        """Give the child that runs this attempt; no other attempt can start there. A waiting attempt ends here."""
        child = attempt.child
        if isinstance(child, PoolChild):
            child.settle()
            if attempt.place is Place.ASSIGNED:
                return child
            child.poll()
        if attempt.place is Place.WAITING:
            self._waiting.remove(attempt)
            self._end_without_child(attempt, not_started(reason))
        return None

    def _dispatch_soon(self) -> None:
        """Dispatch together what comes in one turn of the loop."""
        if not self._will_dispatch:
            self._will_dispatch = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Assign what waits, in order, as far as there are children for it."""
        self._will_dispatch = False
        now = self._loop.time()
        while self._waiting and (child := self._choose(self._waiting[0])) is not None:
            child.assign(next_batch(self._waiting, child, self._estimates, len(self._idle) + 1), now)
        if self._tick is None and not self._is_closing and (self._waiting or len(self._idle) < len(self._children)):
            self._tick = self._loop.call_later(_TICK_SECONDS, self._on_tick)

    def _choose(self, attempt: PoolAttempt) -> PoolChild | None:
        """Give an idle child (the last busy one), or one that will soon be idle. None: a new one will come."""
        while self._idle:
            child = self._idle.popitem()[0]
            if child.room:
                return child
        seconds = self._estimates.seconds(attempt.path)
        soonest = min(self._children - self._stuck, key=load, default=None)
        fits = soonest is not None and soonest.room > 0 and not is_quarantined(attempt)
        if soonest is None or not fits or soonest.load + seconds > _MIN_LOAD_FOR_FORK_SECONDS:
            self._fork_up_to(len(self._children) + 1)
        return soonest if soonest is not None and fits and self._estimates.fits(soonest.load + seconds) else None

    def _on_tick(self) -> None:
        """Look at the children that have tasks, at an interval, while there are any."""
        self._tick = None
        now = self._loop.time()
        for child in list(self._children):
            if child.assigned:
                self._look_at(child, now)
        children = len(self._children) if self._spawner.is_lost else self._concurrency
        if self._waiting and len(self._stuck) >= children:
            self._give_back_waiting(now)
        self._dispatch()

    def _look_at(self, child: PoolChild, now: float) -> None:
        child.poll()  # for results that the child has not woken us for
        first = next(iter(child.assigned.values()), None)
        if first is None:
            return
        if self._is_stuck(child, now):
            self._stuck.add(child)
        if len(child.assigned) > 1 and now - first.assigned_at > _MAX_BEHIND_SECONDS:
            child.take_back()
            child.poll()
        if child in self._stuck and child.assigned:
            child.watch_time(now)
            self._estimates.task_is_running(next(iter(child.assigned.values())).path, now - child.progress)

    def _is_stuck(self, child: PoolChild, now: float) -> bool:
        return bool(child.assigned) and now - child.progress > _STUCK_SECONDS

    def _give_back_waiting(self, now: float) -> None:
        """Another worker may be idle."""
        while self._waiting and now - self._waiting[0].since > _MAX_WAIT_SECONDS:
            self._end_without_child(self._waiting.popleft(), not_started(StopReason.SHUTDOWN))

    def _fork_up_to(self, count: int) -> None:
        self._spawner.ensure(count, len(self._children))

    def _child_started(self, child: PoolChild) -> None:
        self._children.add(child)
        self._idle[child] = None
        self._dispatch_soon()
        self._on_room()

    def _remove_child(self, child: PoolChild) -> None:
        self._children.discard(child)
        self._idle.pop(child, None)
        is_young = self._loop.time() - child.started_at < _YOUNG_SECONDS
        if not child.tasks and is_young and not child.was_retired and not self._is_closing:
            self._spawner.failed(f"child {child.pid} of the pool ended before its first task")
        self._fork_up_to(self._spawner.min_children)

    def _fork_again(self) -> None:
        """There is a forkserver again, or a pause is over."""
        if not self._spawner.is_pausing:
            self._on_ready()
        self._fork_up_to(self._spawner.min_children)
        self._dispatch_soon()
        self._on_room()
