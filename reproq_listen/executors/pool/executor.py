"""The executor mode `pool`: a few warm children that serve many tasks each.

What is paid per message is shared: tasks that are known to be short travel to a child together, and their ends come
back together. What a wait would cost is bounded: a task that stands behind one that takes longer than was thought
is taken back within some hundredths of a second, for another child or for another worker.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta

from reproq_listen.errors import SettingError
from reproq_listen.executors.admission import RefusedError, admit, check_settings
from reproq_listen.executors.cleanup.cleanup import ProcessCleanup
from reproq_listen.executors.forkserver.forkserver import make_forkserver
from reproq_listen.executors.per_task.executor import Noted
from reproq_listen.executors.pool.attempt import Place, PoolAttempt, unstarted
from reproq_listen.executors.pool.batching import load, next_batch, travels_alone
from reproq_listen.executors.pool.child import Limits, PoolChild, State
from reproq_listen.executors.pool.estimates import DurationEstimates
from reproq_listen.executors.pool.isolation import UnbatchablePaths
from reproq_listen.executors.pool.spawner import ChildSpawner
from reproq_listen.executors.process.oom import OomCounter
from reproq_listen.model import ClaimedTask, ExecutorSettings, Outcome, StopReason
from reproq_listen.protocol.executor import OUR_MODULE

_TICK_SECONDS = 0.010
_BEHIND_SECONDS = 0.020
"""What has not been started so long after it was given is taken back."""
_STUCK_SECONDS = 0.020
"""A child that is so long about one task is not counted on for others."""
_HELD_SECONDS = 0.050
"""A task waits here so long at most while all children are stuck; then it goes back to the database."""
_WORTH_A_FORK_SECONDS = 0.002
_MAX_AGE = timedelta(hours=1)


class PoolExecutor:
    """Owns the children, and the tasks that wait for one. One a process; bound to one event loop."""

    def __init__(
        self,
        settings: ExecutorSettings,
        concurrency: int,
        warn: Callable[[str], None],
        noted: Noted = lambda task, note: None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """`warn` is told what an operator should know and no task is to blame for, `noted` what a task says of
        itself while it runs: a JSON object, not looked at yet. `on_room` is called when `room` may have become more."""
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._concurrency = concurrency
        self.noted = noted
        self._oom = OomCounter()
        limits = Limits(
            grace=settings.grace,
            exec_timeout=settings.exec_timeout,
            max_result_bytes=settings.max_stdout_bytes,
            max_tasks=settings.max_tasks_per_child,
            max_age=_MAX_AGE,
        )
        cleanup = ProcessCleanup(warn)
        warm = make_forkserver(settings, cleanup, warn, self.may_fork_again, with_pool=True)
        self._spawner = ChildSpawner(settings, limits, concurrency, warm, cleanup, self._oom, warn)
        self._estimates = DurationEstimates()
        self.unbatchable = UnbatchablePaths()
        self._allowed_paths: set[str] = set()
        self._waiting: deque[PoolAttempt] = deque()
        self._children: set[PoolChild] = set()
        self._idle: dict[PoolChild, None] = {}
        self._stuck: set[PoolChild] = set()
        self._held = 0
        self._tick: asyncio.TimerHandle | None = None
        self._will_dispatch = False
        self._is_closing = False
        self.on_room = on_room

    @property
    def pids(self) -> list[int]:
        """The children that are alive."""
        return [child.pid for child in self._children]

    @property
    def busy(self) -> int:
        """How many children have something in hand."""
        return sum(bool(child.given) for child in self._children)

    @property
    def template_pid(self) -> int | None:
        """The process that new children come from."""
        return self._spawner.template_pid

    @property
    def control_group(self) -> str:
        """Where all that tasks start is held together, or `none` and why; see ProcessCleanup."""
        return self._spawner.control_group

    def room(self, coming: int = 0) -> int:
        """How many more tasks should be claimed now: what can start at once, and what short tasks are worth.

        `coming`: so many are about to be submitted.
        """
        if self._is_closing or (not self._children and self._spawner.is_pausing):
            return 0
        most = len(self._children) if self._spawner.is_pausing else self._concurrency
        return self._estimates.room(most, self._held + coming, len(self._stuck))

    async def open(self) -> None:
        """Look at everything that would make every task fail, and have some children ready. Raises ReproqError."""
        check_settings(self._settings)
        module = self._settings.executor_module
        if module != OUR_MODULE:
            raise SettingError(f"--executor pool runs no other module than {OUR_MODULE}; use fork for {module}")
        await self._spawner.open()
        self._fork_up_to(self._spawner.least)

    def submit(self, task: ClaimedTask, ended: Callable[[Outcome], None]) -> PoolAttempt:
        """Take a task on. `ended` is called once, later on the loop: see PoolAttempt. Never raises for a fault of the
        task: then its end says so."""
        attempt = PoolAttempt(self, task, b"", ended, self._loop.time())
        self._held += 1
        try:
            attempt.spec = admit(task, self._settings, self._allowed_paths)
        except RefusedError as refusal:
            self._loop.call_soon(self._finish_here, attempt, Outcome(result=None, error=refusal.error))
        else:
            self._waiting.append(attempt)
            self._dispatch_soon()
        return attempt

    def stop(self, attempt: PoolAttempt, reason: StopReason) -> None:
        """See PoolAttempt.stop."""
        attempt.stopped = reason
        child = self._find(attempt)
        if child is not None:
            child.stop(attempt, reason)
        elif attempt.place is Place.WAITING:
            self._drop(attempt, reason)

    def kill(self, attempt: PoolAttempt) -> None:
        """See PoolAttempt.kill."""
        attempt.stopped = attempt.stopped or StopReason.SHUTDOWN
        child = self._find(attempt)
        if child is not None:
            child.kill()
        elif attempt.place is Place.WAITING:
            self._drop(attempt, attempt.stopped)

    async def reload(self) -> None:
        """Fork from a new template from now on; what runs ends in the old children."""
        await self._spawner.reload()
        for child in list(self._children):
            self._idle.pop(child, None)
            child.retire()
        self._fork_up_to(self._spawner.least)

    async def close(self) -> None:
        """Kill what still runs, let the idle children go, and wait until all have ended."""
        self._is_closing = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        for attempt in list(self._waiting):
            attempt.stop(StopReason.SHUTDOWN)
        await self._spawner.stop_starting()
        children = list(self._children)
        for child in children:
            if child.given:
                child.kill()
            else:
                child.retire()
        await asyncio.gather(*(child.has_ended.wait() for child in children))
        await self._spawner.close()

    # What children tell: the protocol `Pool` of child.py.

    def ended(self, attempt: PoolAttempt, outcome: Outcome, seconds: float) -> None:
        self._estimates.took(attempt.path, seconds)
        self._finish(attempt, outcome)

    def came_back(self, attempts: Sequence[PoolAttempt]) -> None:
        for attempt in reversed(attempts):
            if attempt.stopped is None:
                self._waiting.appendleft(attempt)
            else:
                self._finish_here(attempt, unstarted(attempt.stopped))
        self._dispatch_soon()

    def has_looked(self, child: PoolChild) -> None:
        if not self._is_stuck(child, self._loop.time()):
            self._stuck.discard(child)
        if child.state is State.ENDED:
            self._remove_child(child)
        elif child.room and not child.given:
            self._idle[child] = None
        if self._waiting:
            self._dispatch()
        self.on_room()

    def saw_oom_kill(self, since: int) -> bool:
        return self._oom.read() > since

    def _finish(self, attempt: PoolAttempt, outcome: Outcome) -> None:
        self._held -= 1
        attempt.end(outcome)

    def _finish_here(self, attempt: PoolAttempt, outcome: Outcome) -> None:
        """Without a child, whose look would tell of the room."""
        self._finish(attempt, outcome)
        self.on_room()

    def _find(self, attempt: PoolAttempt) -> PoolChild | None:
        """Give the child that runs this attempt, to be stopped at once: nothing is left there that could start."""
        child = attempt.child
        if not isinstance(child, PoolChild):
            return None
        child.settle()
        if attempt.place is Place.GIVEN:
            return child
        child.look()
        return None

    def _drop(self, attempt: PoolAttempt, reason: StopReason) -> None:
        self._waiting.remove(attempt)
        self._finish_here(attempt, unstarted(reason))

    def _dispatch_soon(self) -> None:
        """All that comes in one turn of the loop is dealt out together."""
        if not self._will_dispatch:
            self._will_dispatch = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Deal out what waits, in order, as far as there are children for it."""
        self._will_dispatch = False
        now = self._loop.time()
        while self._waiting and (child := self._choose(self._waiting[0])) is not None:
            child.give(next_batch(self._waiting, child, self._estimates, self.unbatchable, len(self._idle) + 1), now)
        if self._tick is None and not self._is_closing and (self._waiting or len(self._idle) < len(self._children)):
            self._tick = self._loop.call_later(_TICK_SECONDS, self._on_tick)

    def _choose(self, attempt: PoolAttempt) -> PoolChild | None:
        """An idle child, the one that was busy last; else one that will soon be; else a new one, later."""
        while self._idle:
            child = self._idle.popitem()[0]
            if child.room:
                return child
        seconds = self._estimates.seconds(attempt.path)
        soonest = min(self._children - self._stuck, key=load, default=None)
        fits = soonest is not None and soonest.room > 0 and not travels_alone(attempt, self.unbatchable)
        if soonest is None or not fits or soonest.load + seconds > _WORTH_A_FORK_SECONDS:
            self._fork_up_to(len(self._children) + 1)
        return soonest if soonest is not None and fits and self._estimates.fits(soonest.load + seconds) else None

    def _on_tick(self) -> None:
        """Look after the children that have something in hand, while there are any."""
        self._tick = None
        now = self._loop.time()
        for child in list(self._children):
            if child.given:
                self._look_after(child, now)
        most = len(self._children) if self._spawner.is_lost else self._concurrency
        if self._waiting and len(self._stuck) >= most:
            self._give_up_waiting(now)
        self._dispatch()

    def _look_after(self, child: PoolChild, now: float) -> None:
        child.look()  # at ends that were not worth a bell when the next task started
        given = next(iter(child.given.values()), None)
        if given is None:
            return
        if self._is_stuck(child, now):
            self._stuck.add(child)
        if len(child.given) > 1 and now - given.given_at > _BEHIND_SECONDS:
            child.take_back()
            child.look()
        if child in self._stuck and child.given:
            child.watch_time(now)
            self._estimates.runs(next(iter(child.given.values())).path, now - child.progress)

    def _is_stuck(self, child: PoolChild, now: float) -> bool:
        return bool(child.given) and now - child.progress > _STUCK_SECONDS

    def _give_up_waiting(self, now: float) -> None:
        """Another worker may be idle."""
        while self._waiting and now - self._waiting[0].since > _HELD_SECONDS:
            self._finish_here(self._waiting.popleft(), unstarted(StopReason.SHUTDOWN))

    def _fork_up_to(self, count: int) -> None:
        self._spawner.ensure(count, len(self._children), self, self._started)

    def _started(self, child: PoolChild) -> None:
        self._children.add(child)
        self._idle[child] = None
        self._dispatch_soon()
        self.on_room()

    def _remove_child(self, child: PoolChild) -> None:
        self._children.discard(child)
        self._idle.pop(child, None)
        if child.tasks:
            self._spawner.succeeded()
        elif not child.was_retired and not self._is_closing and child.is_young(self._loop.time()):
            why = f"a child of the pool ended before its first task: {child.last_words}"
            self._spawner.failed(why, self.may_fork_again)
        self._fork_up_to(self._spawner.least)

    def may_fork_again(self) -> None:
        self._fork_up_to(self._spawner.least)
        self._dispatch_soon()
        self.on_room()
