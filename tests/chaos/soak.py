"""One soak: workers of every kind at work, a producer, an operator, and a nemesis that follows a plan made from a seed.

What happened is written down where it happens: by the database in the transactions that do it (`HISTORY`), by the
executions (soak_tasks.py), by the workers' logs, and by the actors here. soak_checks.py reads it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, LiteralString, NamedTuple, get_args

import psutil
import psycopg
from psycopg.types.json import Jsonb

from reproq_listen.embedded import EmbeddedServer
from tests.database import Database, wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.workers import WorkerProcess
from tests.executing import is_alive

TASKS = "tests.chaos.soak_tasks"
QUEUES = ("default", "other", "third")
LEASE = 2.0  # seconds
PAUSES = (LEASE + 0.8, LEASE + 2.2)  # of frozen workers and silent networks: at least, at most
TASKS_A_SECOND = 25.0
LIMIT = 2  # of the concurrency key
_FLAGS: tuple[str, ...] = (
    *("--lease-seconds", "2", "--heartbeat-seconds", "0.5", "--reclaim-interval-seconds", "1"),
    *("--grace-seconds", "0.3", "--queues", ",".join(QUEUES), "--preload", TASKS),
)
_KINDS: tuple[tuple[str, ...], ...] = (
    ("--worker-id", "twin", "--executor", "fork", "--concurrency", "8"),
    ("--worker-id", "twin", "--executor", "pool", "--concurrency", "8"),  # two of one name
    ("--executor", "fork", "--concurrency", "8"),  # through the proxy
    ("--executor", "spawn", "--concurrency", "1"),
)
_BEHIND_PROXY = 2

HISTORY: LiteralString = """
    create table soak_history (
        seq bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
        result_id bigint not null, old_status text, new_status text, old_token uuid, new_token uuid,
        attempts integer, max_attempts integer, answer text, queue_name text, lease_end timestamptz);
    create index on soak_history (result_id);
    create function soak_note() returns trigger language plpgsql security definer set search_path from current as $$
    begin
        insert into soak_history (result_id, old_status, new_status, old_token, new_token, attempts, max_attempts,
                                  answer, queue_name, lease_end)
        values (coalesce(new.result_id, old.result_id), old.status, new.status, old.lease_token, new.lease_token,
                coalesce(new.attempts, old.attempts), coalesce(new.max_attempts, old.max_attempts), new.last_answer,
                coalesce(new.queue_name, old.queue_name), old.leased_until);
        return null;
    end $$;
    create trigger soak_made_or_deleted after insert or delete on task_runs for each row execute function soak_note();
    create trigger soak_moved after update on task_runs for each row
    when (old.status <> new.status or old.lease_token is distinct from new.lease_token) execute function soak_note()
"""
_STALE: LiteralString = """
    select t.result_id, h.new_token
    from task_runs t join soak_history h on h.result_id = t.result_id and h.new_token <> t.lease_token
    where t.status = 'RUNNING' limit 10
"""

Kind = Literal[
    "kill worker", "kill executor", "crash database", "cut claim", "cut complete", "freeze worker", "freeze executor",
    "silence", "stop worker", "cut connection",
]  # fmt: skip
FAULTS_PER_1000: dict[Kind, float] = {
    "kill worker": 21,
    "kill executor": 21,
    "crash database": 1.2,
    "cut claim": 2,
    "cut complete": 2,
    "freeze worker": 5,
    "freeze executor": 2,
    "silence": 4,
    "stop worker": 3,
    "cut connection": 5,
}
assert set(FAULTS_PER_1000) == set(get_args(Kind))


class Fault(NamedTuple):
    """One thing that the nemesis does. Of several victims the one at `pick` modulo their number is meant."""

    at: float  # seconds after the start
    kind: Kind
    pick: int


def plan(seed: int, tasks: int) -> list[Fault]:
    """The faults of a run, in order: the same for the same seed."""
    dice = random.Random(f"faults {seed}")
    faults = [
        Fault(dice.uniform(1, tasks / TASKS_A_SECOND), kind, dice.randrange(1 << 16))
        for kind, number in FAULTS_PER_1000.items()
        for _ in range(max(1, round(number * tasks / 1000)))
    ]
    return sorted(faults)


class Called(NamedTuple):
    """An operator's call that was answered. Times by the system's monotonic clock."""

    what: str
    about: str | int
    answer: str
    sent: float
    answered: float


@dataclass
class Soak:
    """What a run has left to be looked at."""

    folder: Path
    asked: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What each result id was asked to be, of the enqueue calls that were answered."""
    chains: list[list[int]] = field(default_factory=list)
    chords: list[tuple[list[int], int]] = field(default_factory=list)
    """Members, and the callback."""
    calls: list[Called] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """What the nemesis has done, by kind."""
    frozen: list[tuple[int, float, float]] = field(default_factory=list)
    """Worker's pid, from, to."""
    workers: list[WorkerProcess] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    deserters: list[str] = field(default_factory=list)
    """Workers that ended without being told to."""
    history: list[dict[str, Any]] = field(default_factory=list)
    cuts: int = 0
    """Replies that were really cut off."""
    seconds_to_settle: float = 0.0
    wall_minus_monotonic: float = field(default_factory=lambda: time.time() - time.monotonic())


def some_tasks(soak: Soak, dice: random.Random, count: int) -> list[dict[str, Any]]:
    """Tasks of every kind, as reproq_enqueue_many takes them."""
    return [_some_task(soak, dice) for _ in range(count)]


def _some_task(soak: Soak, dice: random.Random) -> dict[str, Any]:
    kinds = ("work", "resist", "fail_first", "crash_first", "fail")
    function = dice.choices(kinds, weights=[80, 13, 3, 2, 2])[0]
    seconds = dice.uniform(1, 3) if dice.random() < 0.05 else dice.uniform(0, 0.12)
    number = len(soak.asked)
    task: dict[str, Any] = {
        "task_path": f"{TASKS}.{function}",
        "args": [str(soak.folder), round(seconds, 3), number],
        "queue_name": dice.choice(QUEUES),
        "priority": dice.choice([0, 0, 1, 5]),
        "max_attempts": 1 if dice.random() < 0.05 else 3 if function == "fail" else 20,
        "timeout_seconds": 5,
        "backoff_seconds": 0.05,
        "takes_context": True,
        "dedupe": False,
    }
    if dice.random() < 0.20:
        task["lock_key"] = dice.choice("abcdefgh")
    if dice.random() < 0.14:
        task |= {"concurrency_key": dice.choice("xyz"), "concurrency_limit": LIMIT}
    soak.asked.append(task)
    return task


class Actor(threading.Thread):
    """A thread with a session that is made anew after every error; its own errors end the run."""

    def __init__(self, database: Database) -> None:
        super().__init__(daemon=True)
        self._database = database
        self._session: psycopg.Connection | None = None
        self.error: BaseException | None = None
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            self.act()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self.error = error

    def act(self) -> None:
        raise NotImplementedError

    def rows(self, query: LiteralString, *args: object) -> list[Any] | None:
        """The rows of one statement, or None if its fate is unknown or it had no effect."""
        try:
            if self._session is None:
                self._session = self._database.connect()
            cursor = self._session.execute(query, args)
            return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError:  # away, or a lock timeout
            self.forget()
            return None

    def forget(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


class Producer(Actor):
    """Enqueues so many tasks at an even pace: single ones, chains and chords. What is not answered is not repeated."""

    def __init__(self, database: Database, soak: Soak, seed: int, tasks: int) -> None:
        super().__init__(database)
        self._soak = soak
        self._dice = random.Random(f"tasks {seed}")
        self._tasks = tasks

    def act(self) -> None:
        start = time.monotonic()
        while len(self._soak.asked) < self._tasks:
            due = start + len(self._soak.asked) / TASKS_A_SECOND
            if self.stop.wait(max(0.0, due - time.monotonic())):
                break
            self._some()
        self.forget()

    def _some(self) -> None:
        chance = self._dice.random()
        tasks = some_tasks(self._soak, self._dice, self._dice.randint(2, 5))
        if chance < 0.10:
            ids = self._ids("select result_id from reproq_chain(%s) order by ordinal", Jsonb(tasks))
            self._soak.chains += [ids] if ids else []
        elif chance < 0.17:
            *members, callback = tasks
            ids = self._ids(
                "select result_id from reproq_chord(%s, %s) order by ordinal = 0, ordinal",
                Jsonb(members),
                Jsonb(callback),
            )
            self._soak.chords += [(ids[:-1], ids[-1])] if ids else []
        else:
            ids = self._ids("select result_id from reproq_enqueue_many(%s) order by ordinal", Jsonb(tasks))
        self._soak.acknowledged |= dict(zip(ids, tasks, strict=True)) if ids else {}

    def _ids(self, query: LiteralString, *args: object) -> list[int]:
        return [row[0] for row in self.rows(query, *args) or []]


class Operator(Actor):
    """Pauses and resumes, cancels, retries what failed, prunes, reclaims; and speaks for attempts that are over."""

    def __init__(self, database: Database, soak: Soak, seed: int) -> None:
        super().__init__(database)
        self._soak = soak
        self._dice = random.Random(f"operator {seed}")

    def act(self) -> None:
        while not self.stop.wait(self._dice.uniform(0.1, 0.5)):
            action = self._dice.randrange(13)
            ids = list(self._soak.acknowledged)
            if action < 4 and ids:
                self._call("cancel", self._dice.choice(ids[-40:]), "select reproq_cancel(%s)")
            elif action < 5:
                queue = self._dice.choice(QUEUES)
                self._call("pause", queue, "select reproq_pause(%s)")
                self.stop.wait(1.2)
                self._resume(queue)
            elif action < 7:
                self.rows("select from reproq_retry_failed(p_limit => 5)")
            elif action < 8:
                self.rows("select reproq_prune_finished(interval '3 seconds', 20)")
            elif action < 10:
                self.rows("select from reproq_reclaim()")
            else:
                self._impersonate()
        self.forget()

    def _impersonate(self) -> None:
        """End running tasks under tokens of their earlier attempts."""
        for result_id, token in self.rows(_STALE) or []:
            sent = time.monotonic()
            rows = self.rows(
                "select answer from reproq_complete(array[%s], array[%s], array['0'::jsonb])", result_id, token
            )
            if rows is not None:
                self._soak.calls.append(Called("impersonate", result_id, rows[0][0], sent, time.monotonic()))

    def _resume(self, queue: str) -> None:
        while not self._call("resume", queue, "select reproq_resume(%s)"):
            time.sleep(0.1)

    def _call(self, what: str, about: str | int, query: LiteralString) -> bool:
        sent = time.monotonic()
        rows = self.rows(query, about)
        if rows is not None:
            self._soak.calls.append(Called(what, about, str(rows[0][0]), sent, time.monotonic()))
        return rows is not None


class Nemesis:
    """Carries out a plan, and keeps every place of a worker filled."""

    def __init__(self, server: EmbeddedServer, database: Database, proxy: Proxy, soak: Soak) -> None:
        self._server = server
        self._database = database
        self._proxy = proxy
        self._soak = soak
        self._later: list[tuple[float, int, Any]] = []
        self._numbers = iter(range(1 << 30))
        self._stopping: list[WorkerProcess] = []
        self._frozen: set[int] = set()
        self.places = [self._start(place) for place in range(len(_KINDS))]

    def follow(self, faults: Iterable[Fault]) -> None:
        start = time.monotonic()
        for fault in faults:
            self._do_until(start + fault.at)
            if self._carry_out(fault):
                self._soak.done[fault.kind] += 1
        self._do_until(time.monotonic() + PAUSES[1] + 2)

    def close(self) -> None:
        """Everything frozen goes on; then every worker is told to stop, and must."""
        for _, _, action in sorted(self._later):
            action()
        for worker in [*self.places, *self._stopping]:
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
        for worker in [*self.places, *self._stopping]:
            status = worker.wait(45)
            if status != 0 and worker.seen("worker_started"):  # before that the signal does what it always does
                self._soak.deserters.append(f"worker {worker.pid} ended with status {status} when it was told to stop")

    def kill_all(self) -> None:
        """Leave nothing, also of a run that has failed."""
        for worker in self._soak.workers:
            worker.__exit__(None, None, None)

    def _start(self, place: int) -> WorkerProcess:
        dsn = self._proxy.dsn if place == _BEHIND_PROXY else self._database.dsn
        worker = WorkerProcess(dsn, *_FLAGS, *_KINDS[place], allowed=TASKS)
        self._soak.workers.append(worker)
        return worker

    def _do_until(self, moment: float) -> None:
        """Do what is due meanwhile; then it is that moment."""
        while True:
            for place, worker in enumerate(self.places):
                if worker.process.poll() is not None:
                    self._soak.deserters.append(f"worker {worker.pid} ended by itself: {worker.process.poll()}")
                    self.places[place] = self._start(place)
            now = time.monotonic()
            if self._later and self._later[0][0] <= min(now, moment):
                heapq.heappop(self._later)[2]()
            elif now >= moment:
                return
            else:
                time.sleep(min(0.05, moment - now))

    def _after(self, seconds: float, action: Any) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), action))

    def _carry_out(self, fault: Fault) -> bool:
        """Whether there was a victim."""
        match fault.kind:
            case "kill worker" | "stop worker":
                self._end_worker(fault)
            case "kill executor" | "freeze executor":
                return self._hit_executor(fault)
            case "crash database":
                self._server.stop("immediate")
                self._server.start()
            case "cut claim" | "cut complete":
                self._proxy.cut_reply_to = b"reproq_" + fault.kind.split()[1].encode()
            case "freeze worker":
                return self._freeze(fault)
            case "silence":
                self._proxy.silent = True
                self._after(_pause(fault), lambda: setattr(self._proxy, "silent", False))
            case "cut connection":
                return self._cut_connection(fault.pick)
        return True

    def _end_worker(self, fault: Fault) -> None:
        place = fault.pick % len(self.places)
        worker = self.places[place]
        if fault.kind == "stop worker" and worker.pid not in self._frozen:
            worker.signal(signal.SIGTERM)
            self._stopping.append(worker)
        else:
            family = _family(worker.pid)
            worker.process.kill()
            worker.process.wait()
            self._frozen.discard(worker.pid)
            self._after(2.0, lambda: self._look_for(family, f"2 s after the death of worker {worker.pid}"))
        self.places[place] = self._start(place)

    def _look_for(self, family: list[psutil.Process], when: str) -> None:
        self._soak.orphans += [f"{each.pid} {when}" for each in family if each.is_running() and is_alive(each.pid)]

    def _hit_executor(self, fault: Fault) -> bool:
        pids = sorted(running_executors(self._soak.folder))
        if not pids:
            return False
        pid = pids[fault.pick % len(pids)]
        number = (signal.SIGKILL, signal.SIGSEGV)[fault.pick % 2] if fault.kind == "kill executor" else signal.SIGSTOP
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        return True

    def _freeze(self, fault: Fault) -> bool:
        worker = self.places[fault.pick % len(self.places)]
        if worker.pid in self._frozen:
            return False
        self._frozen.add(worker.pid)
        begin = time.monotonic()
        worker.signal(signal.SIGSTOP)

        def thaw() -> None:
            self._soak.frozen.append((worker.pid, begin, time.monotonic()))
            self._frozen.discard(worker.pid)
            with contextlib.suppress(ProcessLookupError):
                worker.signal(signal.SIGCONT)

        self._after(_pause(fault), thaw)
        return True

    def _cut_connection(self, pick: int) -> bool:
        with contextlib.suppress(psycopg.OperationalError), self._database.connect() as session:
            pids = session.execute(
                "select pid from pg_stat_activity where application_name like 'reproq-listen%' order by pid"
            ).fetchall()
            if pids:
                session.execute("select pg_terminate_backend(%s)", pids[pick % len(pids)])
                return True
        return False


def _pause(fault: Fault) -> float:
    least, most = PAUSES
    return least + (most - least) * (fault.pick % 100) / 100


def _family(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def running_executors(folder: Path) -> Iterator[int]:
    """Processes whose last execution has not ended, by their journals; some may be dead."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200))
            last = file.read().rsplit(b"\n", 2)
        if len(last) >= 2 and not last[-2].endswith(b"end") and is_alive(int(path.name)):
            yield int(path.name)


def run(server: EmbeddedServer, database: Database, folder: Path, seed: int, tasks: int) -> Soak:
    """Soak until all tasks have ended. Raises AssertionError if they do not."""
    soak = Soak(folder)
    with database.connect() as session:
        session.execute(HISTORY)
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(database.dsn))
        nemesis = Nemesis(server, database, proxy, soak)
        stack.callback(nemesis.kill_all)
        actors = [Producer(database, soak, seed, tasks), Operator(database, soak, seed)]
        for actor in actors:
            actor.start()
        nemesis.follow(plan(seed, tasks))
        actors[0].join()
        actors[1].stop.set()
        actors[1].join()
        for actor in actors:
            if actor.error is not None:
                raise actor.error
        quiet = time.monotonic()
        wait_for_the_end(database)
        soak.seconds_to_settle = time.monotonic() - quiet
        nemesis.close()
        soak.cuts = proxy.cuts
        with database.connect() as session:
            cursor = session.cursor(row_factory=psycopg.rows.dict_row)
            soak.history = cursor.execute("select * from soak_history order by seq").fetchall()
    return soak


_WHAT_IS_LEFT: tuple[LiteralString, ...] = (
    "select status, queue_name, parked_on <> '', lost_count >= 2, count(*) from task_runs where finished_at is null"
    " group by 1, 2, 3, 4 order by 1, 2, 3, 4",
    "select queue_name, paused from reproq_queue_controls",
    "select date_trunc('second', at), count(*) from soak_history where new_status = 'RUNNING'"
    " and at > clock_timestamp() - interval '20 s' group by 1 order by 1",
    "select leased_by, result_id, attempts, leased_until - now(), lost_count from task_runs where status = 'RUNNING'",
    "select t.result_id, e.* from task_runs t, reproq_explain(t.result_id) e where t.status = 'READY' limit 20",
)


def wait_for_the_end(database: Database) -> None:
    """Whoever lost its lease nine times waits for minutes: that is cut short, as an operator would."""
    with database.connect() as session:

        def is_over() -> bool:
            session.execute("update task_runs set run_after = null where status = 'READY' and run_after > now()")
            return session.execute("select from task_runs where finished_at is null limit 1").fetchone() is None

        try:
            wait_until(is_over, what="all tasks have ended", seconds=60)
        except AssertionError:
            for question in _WHAT_IS_LEFT:
                print(json.dumps(session.execute(question).fetchall(), default=str))
            raise
