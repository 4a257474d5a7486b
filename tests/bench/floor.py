"""The least there can be between a row and its claim: a process that listens and claims, and does nothing else.

usage: python -m tests.bench.floor DSN
StdioCapture `listening`, then for each claimed task of the queue `floor` the monotonic time at which it had it.
"""

from __future__ import annotations

import sys
import time
from typing import LiteralString

import psycopg

CLAIM: LiteralString = """
    select result_id, lease_token, spec_json::text
    from reproq_claim(p_worker_id => 'floor', p_queues => '{floor}', p_limit => 1, p_lease => interval '1 hour')
"""


def main(dsn: str) -> None:
    with (
        psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as listener,
        psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as claimer,
    ):
        listener.execute("listen reproq_ready")
        listener.execute("select reproq_notify_on('{floor}')")
        claimer.execute(CLAIM).fetchall()
        write_line("listening")
        for call in listener.notifies():
            if call.payload == "floor" and claimer.execute(CLAIM).fetchall():
                write_line(repr(time.monotonic()))


def write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
