"""Everything that may break breaks, at once and again, while work goes on; then nothing may be lost, doubled or stuck.

    .venv/bin/pytest tests/chaos/test_soak.py                                        four hundred tasks, seed 1
    REPROQ_SOAK=10000 REPROQ_SOAK_SEED=2 .venv/bin/pytest tests/chaos/test_soak.py   before a release: seeds 1, 2 and 3

A failure says how to repeat it: the same seed gives the same tasks and the same faults at the same moments. `-s` shows
the numbers of the run.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from reproq_listen.embedded.server import EmbeddedServer
from tests.chaos.soak import run
from tests.chaos.soak_actors import some_tasks
from tests.chaos.soak_checks import check
from tests.chaos.soak_nemesis import FAULTS_PER_1000, plan
from tests.chaos.soak_record import Soak
from tests.support.database import Database

TASKS = int(os.environ.get("REPROQ_SOAK", "400"))
SEED = int(os.environ.get("REPROQ_SOAK_SEED", "1"))
REPRODUCE = f"REPROQ_SOAK={TASKS} REPROQ_SOAK_SEED={SEED} .venv/bin/pytest -s tests/chaos/test_soak.py"


@pytest.mark.chaos
@pytest.mark.timeout(TASKS / 10 + 120)
def test_soak(own_server: tuple[EmbeddedServer, Database], tmp_path: Path) -> None:
    """Safety all the time, and every task ended within a minute after the last fault."""
    server, database = own_server
    folder = tmp_path / "journals"
    folder.mkdir()
    print(REPRODUCE)
    soak = run(server, database, folder, SEED, TASKS)
    found = check(soak)
    log = (server.socket_folder / "log").read_text(errors="replace")
    deadlocks = log.count("deadlock detected")
    print(json.dumps({"seed": SEED, **soak.done, **found.numbers, "deadlocks": deadlocks}, indent=1))
    print(Counter(line.split("ERROR:")[1].strip()[:100] for line in log.splitlines() if "ERROR:" in line))
    assert not found.violations, "\n".join([*found.violations[:20], f"repeat with: {REPRODUCE}"])
    assert deadlocks == 0, REPRODUCE
    assert soak.done.keys() == FAULTS_PER_1000.keys()


def test_soak_same_seed_gives_the_same_run() -> None:
    """Faults and tasks come from the seed alone."""

    def tasks(seed: int) -> list[dict[str, object]]:
        return some_tasks(Soak(Path("x")), random.Random(seed), 100)

    assert plan(1, 1000) == plan(1, 1000) != plan(2, 1000)
    assert tasks(1) == tasks(1) != tasks(2)
