"""reproq-listen, but SIGUSR1 makes the claim loop hang for ever in its next claim; everything else goes on.

/readyz allows the loop two seconds instead of 45.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from reproq_listen.cli import main as cli
from reproq_listen.http import probes
from reproq_listen.worker.claimer import Claimed, Claimer

take = Claimer.take
stuck = False


def hang(*_: object) -> None:
    global stuck
    stuck = True


async def take_or_hang(self: Claimer, limit: int) -> Claimed:
    if stuck:
        await asyncio.Event().wait()
    return await take(self, limit)


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, hang)
    Claimer.take = take_or_hang  # type: ignore[method-assign]
    probes.SAFETY_POLL = 0  # type: ignore[attr-defined]
    probes._LOOP_SLACK = 2
    sys.exit(cli.main(sys.argv[1:]))
