"""The start on a database: wait for it a while, check the contract, put refusals into words."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reproq_listen.db import dsn as dsns
from reproq_listen.db.errors import CallError, CallRefused, DatabaseAway, DatabaseBusy, ValueRefused
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Database
from reproq_listen.errors import ContractError, ReproqError, SettingError, UnreachableError
from reproq_listen.logs.event_log import Log
from reproq_listen.runtime.signals import Stop
from reproq_listen.runtime.wake_flag import wait_for_event

T = TypeVar("T")

START_LIMIT = 10.0
"""Seconds to wait for a database that does not answer yet."""

_MAY_COME = (DatabaseAway, DatabaseBusy)
NO_RIGHT = "42501"
_OURS = ("RQ001", "RQ002")


async def enter(
    database: Database,
    first: Callable[[], Awaitable[T]],
    stop: Stop,
    dsn: str,
    schema: str | None,
    program: str,
    log: Log,
) -> T | None:
    """Check the contract, then give what the first call gives. None if told to stop meanwhile.

    Waits for a database that is away or busy; what it refuses is raised at once. Raises ReproqError.
    """
    patience = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(START_LIMIT, patience.set)
    told = asyncio.create_task(_set_when(stop.draining, patience))
    try:
        await retry_until_answered(
            lambda: check_contract(database, dsn, schema, program, "reproq_worker"),
            log,
            give_up=patience,
            errors=_MAY_COME,
        )
        return await retry_until_answered(first, log, give_up=patience, errors=_MAY_COME)
    except _MAY_COME as error:
        if stop.draining.is_set():
            return None
        raise UnreachableError(
            f"the database {dsns.describe(dsn)} did not answer within {START_LIMIT:g} s: {error}. "
            "Check --dsn (or DATABASE_URL) and that the server runs"
        ) from None
    except CallError as error:
        raise in_words(error, dsn) from None
    finally:
        timer.cancel()
        told.cancel()


async def check_contract(database: Database, dsn: str, schema: str | None, program: str, group: str) -> None:
    """Raises ContractError, which says how to cure it, unless the schema serves our contract. Raises CallError, and
    ReproqError if this role may do nothing with reproq; `group`: of which it should be a member."""
    where = f" --schema {shlex.quote(schema)}" if schema else ""
    try:
        refusal = (await database.contract()).refusal()
        if refusal is not None:
            raise ContractError(refusal)
    except ContractError as error:
        raise contract_refused(str(error), dsn, schema, program) from None
    except CallRefused as error:
        if error.sqlstate != NO_RIGHT:
            raise
        grants = f"{program} grants --dsn {shlex.quote(dsns.as_owner(dsn))}{where}"
        raise ReproqError(
            f"this role may not use reproq: {error}. Cure, as the owner of the schema: {grants}, then in psql: "
            f"grant {group} to {await database.role()};"
        ) from None


def contract_refused(reason: str, dsn: str, schema: str | None, program: str) -> ContractError:
    """The reason, and the command that cures it."""
    where = f" --schema {shlex.quote(schema)}" if schema else ""
    return ContractError(f"{reason}. Cure: {program} migrate --dsn {shlex.quote(dsns.describe(dsn))}{where}")


def in_words(error: CallError, dsn: str) -> ReproqError:
    """What to tell people of a call that did not succeed."""
    match error:
        case DatabaseAway():
            return UnreachableError(
                f"the database {dsns.describe(dsn)} does not answer: {error}. Check --dsn (or DATABASE_URL) and that "
                "the server runs; the last call may or may not have taken effect"
            )
        case DatabaseBusy():
            return ReproqError(
                f"nothing was changed; somebody holds the rows or the server is slow: {error}. Try again"
            )
        case CallRefused() if error.sqlstate == NO_RIGHT:
            return ReproqError(f"this role may not do that: {error}. Its owner can grant it: see grants --help")
        case CallRefused() if error.sqlstate in _OURS:
            return SettingError(str(error))
        case ValueRefused():
            return SettingError(f"the database cannot store that: {error}")
        case _:
            return ReproqError(f"the database refused: {error} ({error.sqlstate})")


async def _set_when(first: asyncio.Event, then: asyncio.Event) -> None:
    await wait_for_event(first, None)
    then.set()
