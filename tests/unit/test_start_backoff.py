"""Pauses after processes could not be started, and which task is to blame."""

from __future__ import annotations

import asyncio

import pytest

from reproq_listen.executors.start_backoff import StartBackoff


class Recorded:
    """A backoff, and what it has reported."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.over = 0
        self.backoff = StartBackoff(lambda _, seconds: self.pauses.append(seconds), self._count_over)

    def _count_over(self) -> None:
        self.over += 1


def test_one_failure_is_chance_and_the_second_begins_a_pause() -> None:
    """Failures during a pause are one with it; a success ends it, and the next pauses are short again."""

    async def main() -> None:
        seen = Recorded()
        backoff = seen.backoff
        assert [backoff.failed("why") for _ in range(4)] == [False, True, True, True]
        assert len(seen.pauses) == 1
        backoff.succeeded()
        assert (backoff.is_pausing, seen.over) == (False, 1)
        assert [backoff.failed("why") for _ in range(2)] == [False, True]
        assert seen.pauses[1] <= 0.1
        backoff.close()
        await asyncio.sleep(0.2)
        assert seen.over == 1

    asyncio.run(main())


def test_pauses_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """With jitter below."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)

    async def main() -> None:
        seen = Recorded()
        for _ in range(20):
            seen.backoff.failed("why")
            if (timer := seen.backoff._timer) is not None:
                timer.cancel()
                seen.backoff._end_pause()
        assert seen.pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
        assert max(seen.pauses) == seen.pauses[-1] == 10
        assert seen.over == len(seen.pauses)

    asyncio.run(main())


def test_task_that_fails_alone_is_to_blame() -> None:
    """Its fifth failure to start, if others started between them; not on a host where nothing starts."""

    async def main() -> None:
        backoff = Recorded().backoff
        assert not any(backoff.blames(1) for _ in range(50))
        blamed = []
        for _ in range(5):
            backoff.succeeded()
            blamed.append(backoff.blames(1))
        assert blamed == [False, False, False, True, False]
        assert not backoff.blames(2)

    asyncio.run(main())
