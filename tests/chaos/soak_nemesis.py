"""Faults by a plan that is made from a seed, and the workers that they hit."""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import psutil
import psycopg

from reproq_listen.embedded.server import EmbeddedServer
from tests.chaos.soak_actors import TASKS_A_SECOND
from tests.chaos.soak_record import QUEUES, TASKS, Soak
from tests.support.database import Database
from tests.support.executing import is_alive
from tests.support.proxy import Proxy
from tests.support.workers import WorkerProcess

LEASE = 2.0  # seconds
PAUSES = (LEASE + 0.8, LEASE + 2.2)  # of frozen workers and silent networks: at least, at most
_FLAGS: tuple[str, ...] = (
    *("--lease-seconds", "2", "--heartbeat-seconds", "0.5", "--reclaim-interval-seconds", "1"),
    *("--grace-seconds", "0.3", "--queues", ",".join(QUEUES), "--preload", TASKS),
)
_KINDS: tuple[tuple[str, ...], ...] = (
    ("--worker-id", "same", "--executor", "fork", "--concurrency", "8"),
    ("--worker-id", "same", "--executor", "pool", "--concurrency", "8"),  # two of one name
    ("--executor", "fork", "--concurrency", "8"),  # through the proxy
    ("--executor", "spawn", "--concurrency", "1"),
)
_BEHIND_PROXY = 2

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


class Nemesis:
    """Carries out a plan, and replaces every worker that ends."""

    def __init__(self, server: EmbeddedServer, database: Database, proxy: Proxy, soak: Soak) -> None:
        self._server = server
        self._database = database
        self._proxy = proxy
        self._soak = soak
        self._later: list[tuple[float, int, Callable[[], object]]] = []
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
        """Everything frozen goes on; then every worker gets SIGTERM, and must end."""
        for _, _, action in sorted(self._later):
            action()
        for worker in [*self.places, *self._stopping]:
            if worker.process.poll() is None:
                worker.signal(signal.SIGTERM)
        for worker in [*self.places, *self._stopping]:
            status = worker.wait(45)
            if status != 0 and worker.seen("worker_started"):  # before that the signal does what it always does
                self._soak.deserters.append(f"worker {worker.pid} ended with status {status} after SIGTERM")

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

    def _after(self, seconds: float, action: Callable[[], object]) -> None:
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
