"""SIGHUP: it reloads, whatever an earlier reload came to, and never ends a worker that shuts down."""

from __future__ import annotations

import asyncio
import os
import signal

from reproq_listen.runtime.signals import Stop, on_hangup, on_signals
from tests.support.executing import until


def test_signals_reload_that_fails_is_reported_and_the_next_one_runs() -> None:
    """Whatever it raises."""
    reloads: list[int] = []
    errors: list[Exception] = []

    async def reload() -> None:
        reloads.append(1)
        if len(reloads) == 1:
            raise RuntimeError("a fault of ours")

    async def main() -> None:
        with on_signals(Stop()), on_hangup(reload, errors.append):
            for count in (1, 2):
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda: len(reloads) == count, "it reloads", 5)  # noqa: B023
        assert [str(error) for error in errors] == ["a fault of ours"]

    asyncio.run(main())


def test_signals_hangup_after_the_last_reload_does_nothing() -> None:
    """While the worker closes its parts. It neither ends the process nor counts as a second signal to stop."""

    async def reload() -> None:
        raise AssertionError

    async def main() -> None:
        stop = Stop()
        with on_signals(stop):
            with on_hangup(reload, lambda _: None):
                stop.drain()
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            assert not stop.killing.is_set()

    asyncio.run(main())
