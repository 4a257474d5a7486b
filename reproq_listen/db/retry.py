"""Repeats a call until the database answers: the one place that does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from reproq_listen.db.errors import CallError, DatabaseAway
from reproq_listen.logs.event_log import Event, Log
from reproq_listen.runtime.wake_flag import wait_for_event

T = TypeVar("T")


_FIRST_RETRY_PAUSE = 0.1  # seconds; mean of the first pause, doubled from there


_MAX_RETRY_PAUSE = 2.0  # seconds; claims must resume within 5 s of the database's return


async def retry_until_answered(
    call: Callable[[], Awaitable[T]],
    log: Log,
    *,
    give_up: asyncio.Event | None = None,
    on_error: Callable[[CallError], None] | None = None,
    errors: tuple[type[CallError], ...] = (CallError,),
    longest_pause: float = _MAX_RETRY_PAUSE,
) -> T:
    """Repeat `call` until it answers: capped exponential pauses with full jitter, cut short by `give_up`.

    `call` is asked anew each time, so it must be safe to repeat and should read its arguments when it is called.
    Raises the last CallError once `give_up` is set, and at once any error not in `errors`.
    """

    def note(error: BaseException | None) -> None:
        if not isinstance(error, CallError):
            return
        if not isinstance(error, DatabaseAway):
            log.warning(Event.DATABASE_REFUSED, reason=str(error), sqlstate=error.sqlstate)
        if on_error is not None:
            on_error(error)

    async def once() -> T:
        return await call()

    def is_given_up() -> bool:
        return give_up is not None and give_up.is_set()

    async def pause(seconds: float) -> None:
        await wait_for_event(give_up, seconds)

    # Nearly every call answers at once. The machinery of retries is made for the others.
    try:
        return await call()
    except errors as error:
        note(error)
        if is_given_up():
            raise
    await pause(random.uniform(0, _FIRST_RETRY_PAUSE))
    return await AsyncRetrying(
        retry=retry_if_exception_type(errors),
        wait=wait_random_exponential(multiplier=2 * _FIRST_RETRY_PAUSE, max=longest_pause),
        stop=lambda _: is_given_up(),
        sleep=pause,
        after=lambda state: note(state.outcome.exception() if state.outcome else None),
        reraise=True,
    )(once)
