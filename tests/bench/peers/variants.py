"""What is measured: each program in each way of running tasks, with the command line of its worker."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from tests.support.database import ROOT

OURS = "ours"
TASKS = "tests.apps.peer_tasks"
PEERS_PYTHON = str(ROOT / ".venv-peers" / "bin" / "python")


@dataclass(frozen=True)
class Variant:
    """One program in one way of running tasks."""

    name: str
    program: str  # its file in this folder
    flags: tuple[str, ...]
    guess: int  # tasks a second, to size a measurement
    settings: str  # those that matter, for the report

    @property
    def producer(self) -> str:
        """The name of its producer, which variants of one program share."""
        return OURS if self.is_ours else self.name

    @property
    def is_ours(self) -> bool:
        """Whether it is reproq-listen."""
        return self.program == OURS

    @property
    def is_on_postgresql(self) -> bool:
        """Whether its queue is in the database."""
        return self.program != "celery_peer"

    def worker(self, dsn: str, name: str) -> list[str]:
        """The command line of a worker."""
        if self.is_ours:
            command = [sys.executable, "-m", "reproq_listen", "worker", "--dsn", dsn, "--worker-id", name]
            return [*command, "--allowed-task-modules", TASKS, "--preload", TASKS, *self.flags]
        if self.program == "celery_peer":
            command = [PEERS_PYTHON, "-m", "celery", "-A", "tests.bench.peers.celery_peer", "worker"]
            return [*command, "--hostname", name, "--loglevel", "ERROR", *self.flags]
        return [PEERS_PYTHON, "-m", f"tests.bench.peers.{self.program}", dsn, "worker", *self.flags]


VARIANTS = (
    Variant("pool", OURS, ("--executor", "pool", "--concurrency", "4"), 12_000, "4 children, reused"),
    Variant("fork 4", OURS, ("--executor", "fork", "--concurrency", "4"), 400, "a new process for each task"),
    Variant("fork 10", OURS, ("--executor", "fork", "--concurrency", "10"), 400, "a new process for each task"),
    Variant("pgqueuer", "pgqueuer_peer", (), 12_000, "batch 100, tasks in the worker's process, asyncpg, uvloop"),
    Variant("procrastinate", "procrastinate_peer", ("10",), 300, "concurrency 10, tasks in the worker's process"),
    Variant("celery", "celery_peer", ("--pool", "prefork", "--concurrency", "4"), 800,
            "4 processes, reused; acks_late; no results; prefetch 4 for each"),
)  # fmt: skip
BY_NAME = {variant.name: variant for variant in VARIANTS}
