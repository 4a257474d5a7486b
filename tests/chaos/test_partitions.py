"""Packets vanish without a word between worker and database, one way or both: no two attempts at once.

Each worker lives in a network namespace of its own, behind a pair of virtual links. A link loses all packets of one
direction while its sender has a wrong hardware address for the other end. Needs root and `ip`.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import pytest
from psycopg.types.json import Jsonb

from tests.chaos.soak_checks import Execution, read_journals
from tests.chaos.soak_record import TASKS, Soak
from tests.support.database import Database, wait_until
from tests.support.proxy import Proxy
from tests.support.workers import WorkerProcess, row, wait_for_status

Direction = Literal["to the database", "to the worker", "both"]
DIRECTIONS: tuple[Direction, ...] = ("to the database", "to the worker", "both")
UNUSED_MAC = "02:00:00:00:00:01"
FLAGS = (
    *("--lease-seconds", "4", "--heartbeat-seconds", "1", "--grace-seconds", "0.3"),
    *("--reclaim-interval-seconds", "1", "--preload", TASKS),
)
TO_SPARE = 0.5  # seconds before the end of its lease at which an executor is dead
PARTITION = 8.0  # seconds; two leases


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass
class Namespace:
    """A network namespace with one link to this one, here under the address `here`."""

    name: str
    link: str
    here: str
    there: str

    def make(self) -> None:
        ip("netns", "add", self.name)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.here}/30", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("-n", self.name, "addr", "add", f"{self.there}/30", "dev", "eth0")
        ip("-n", self.name, "link", "set", "lo", "up")
        ip("-n", self.name, "link", "set", "eth0", "up")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)

    def lose(self, direction: Direction) -> None:
        """From now on packets of this direction go nowhere."""
        if direction != "to the worker":
            ip("-n", self.name, "neigh", "replace", self.here, "lladdr", UNUSED_MAC, "dev", "eth0", "nud", "permanent")
        if direction != "to the database":
            ip("neigh", "replace", self.there, "lladdr", UNUSED_MAC, "dev", self.link, "nud", "permanent")

    def heal(self) -> None:
        for arguments in (
            ("-n", self.name, "neigh", "del", self.here, "dev", "eth0"),
            ("neigh", "del", self.there, "dev", self.link),
        ):
            subprocess.run(["ip", *arguments], check=False, capture_output=True)


@pytest.fixture
def namespaces() -> Iterator[dict[Direction, Namespace]]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    block = random.SystemRandom().randrange(1 << 14) * 4
    made: dict[Direction, Namespace] = {}
    with ExitStack() as stack:
        for number, direction in enumerate(DIRECTIONS):
            low = block % 256
            here, there = (f"10.{213 + number}.{block // 256}.{low + last}" for last in (1, 2))
            namespace = Namespace(f"reproq-{os.getpid()}-{number}", f"rq{block}-{number}", here, there)
            stack.callback(namespace.remove)
            try:
                namespace.make()
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
            made[direction] = namespace
        yield made


@pytest.mark.chaos
def test_worker_lost_packets_never_let_two_attempts_run_at_once(
    database: Database, namespaces: dict[Direction, Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each executor is dead half a second before its lease ends; then another worker has the task, once.

    The first attempt never ends by itself, and no task starts before all workers are up: a busy machine may be slow.
    """
    with ExitStack() as stack:
        for direction, namespace in namespaces.items():
            proxy = stack.enter_context(Proxy(database.dsn, namespace.here))
            monkeypatch.setenv("REPROQ_TEST_NAMESPACE", namespace.name)
            flags = (*FLAGS, "--queues", direction.replace(" ", "-"))
            program = "tests.support.namespaced_worker"
            worker = stack.enter_context(WorkerProcess(proxy.dsn, *flags, allowed=TASKS, program=program))
            worker.ready()
        tasks = {
            direction: enqueue_resisting(database, direction.replace(" ", "-"), tmp_path) for direction in namespaces
        }
        wait_until(lambda: len(list(tmp_path.iterdir())) == len(tasks), what="all run")
        for direction, namespace in namespaces.items():
            namespace.lose(direction)
        lost = time.monotonic()
        ends = leases_at_the_deaths(database, tmp_path, tasks)
        queues = ",".join(direction.replace(" ", "-") for direction in DIRECTIONS)
        rescuer = stack.enter_context(WorkerProcess(database.dsn, *FLAGS, "--queues", queues, allowed=TASKS))
        rescuer.ready()
        wait_until(lambda: len(executions(tmp_path)) == 2 * len(tasks), what="all run again", seconds=15)
        time.sleep(max(0.0, lost + PARTITION - time.monotonic()))
        for namespace in namespaces.values():
            namespace.heal()
        for direction, result_id in tasks.items():
            done = wait_for_status(database, result_id, "SUCCESSFUL", seconds=15)
            assert (done["attempts"], done["return_json"]) == (2, 2), direction
    for direction, result_id in tasks.items():
        first, second = sorted((e for e in executions(tmp_path) if e.result_id == result_id), key=lambda e: e.start)
        assert first.seen < second.start, direction
        assert ends[result_id] >= TO_SPARE, direction
        assert not first.ended
        assert second.ended


def enqueue_resisting(database: Database, queue: str, folder: Path) -> int:
    task = {
        "task_path": f"{TASKS}.resist_for_ever_first",
        "args": [str(folder), 7, 1],
        "queue_name": queue,
        "takes_context": True,
        "backoff_seconds": 0,
    }
    with database.connect() as session:
        found = session.execute("select result_id from reproq_enqueue_many(%s)", [Jsonb([task])]).fetchone()
    assert found is not None
    return int(found[0])


def executions(folder: Path) -> list[Execution]:
    return list(read_journals(Soak(folder)))


def leases_at_the_deaths(database: Database, folder: Path, tasks: dict[Direction, int]) -> dict[int, float]:
    """Wait until the executors of all tasks are silent; how much of each one's lease was left then, in seconds."""
    wall = time.time() - time.monotonic()
    deadline = time.monotonic() + 10
    ends: dict[int, datetime] = {}
    while True:
        for result_id in tasks.values():
            ends[result_id] = row(database, result_id)["leased_until"] or ends[result_id]
        last = {each.result_id: each.seen for each in executions(folder)}
        if all(seen < time.monotonic() - 0.3 for seen in last.values()):
            return {result_id: end.timestamp() - wall - last[result_id] for result_id, end in ends.items()}
        assert time.monotonic() < deadline, "the executors are not stopped"
        time.sleep(0.05)
