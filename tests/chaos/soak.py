"""One soak: workers of every kind, a producer, an operator, and a nemesis that follows a plan made from a seed."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import LiteralString

from reproq_listen.embedded.server import EmbeddedServer
from tests.chaos.soak_actors import Operator, Producer
from tests.chaos.soak_nemesis import Nemesis, plan
from tests.chaos.soak_record import HISTORY, Soak, read_history
from tests.support.database import Database, wait_until
from tests.support.proxy import Proxy


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
        soak.history = read_history(database)
    return soak


_WHAT_IS_LEFT: tuple[LiteralString, ...] = (
    "select status, queue_name, blocked_on <> '', lost_count >= 2, count(*) from task_runs where finished_at is null"
    " group by 1, 2, 3, 4 order by 1, 2, 3, 4",
    "select queue_name, paused from reproq_queue_controls",
    "select date_trunc('second', at), count(*) from soak_history where new_status = 'RUNNING'"
    " and at > clock_timestamp() - interval '20 s' group by 1 order by 1",
    "select leased_by, result_id, attempts, leased_until - now(), lost_count from task_runs where status = 'RUNNING'",
    "select t.result_id, e.* from task_runs t, reproq_explain(t.result_id) e where t.status = 'READY' limit 20",
)


def wait_for_the_end(database: Database) -> None:
    """A task that lost its lease nine times waits for minutes: that is cut short, as an operator would."""
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
