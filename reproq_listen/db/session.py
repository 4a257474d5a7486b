"""Sessions of commands: connect, wait for the database, check the contract, turn errors into words."""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from reproq_listen.db.connection import CALL_LIMIT, Connection, Prepare
from reproq_listen.db.database import Database, prepare_session
from reproq_listen.db.dsn import as_owner, conninfo, describe, secrets
from reproq_listen.db.errors import CallError, CallRefused, DatabaseAway, DatabaseBusy, ValueRefused
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.errors import ContractError, ReproqError, SettingError, UnreachableError
from reproq_listen.logs.event_log import Log
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.signals import Stop
from reproq_listen.runtime.wake_flag import wait_for_event

T = TypeVar("T")

START_LIMIT = 10.0
"""Seconds to wait for a database that does not answer yet."""

_TRANSIENT = (DatabaseAway, DatabaseBusy)
NO_RIGHT = "42501"
_WRONG_ARGUMENT = ("RQ001", "RQ002")


@asynccontextmanager
async def open_database(
    dsn: str, schema: str | None, job: str, prepare: Prepare = prepare_session, limit: float = CALL_LIMIT
) -> AsyncIterator[Database]:
    """The database of a command that does one thing: it logs nothing, and is closed at the end."""
    log = set_up(secrets(dsn), level=logging.CRITICAL)
    database = Database(Connection(conninfo(dsn), job, log, prepare, limit), schema)
    try:
        yield database
    finally:
        await database.close()


async def enter(
    database: Database,
    first: Callable[[], Awaitable[T]],
    stop: Stop,
    dsn: str,
    schema: str | None,
    program: str,
    log: Log,
) -> T | None:
    """Check the contract, then make the first call and return its result. None if stopped meanwhile.

    Waits up to START_LIMIT for a database that is away or busy; refusals are raised at once. Raises ReproqError.
    """
    give_up = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(START_LIMIT, give_up.set)
    stopped = asyncio.create_task(_set_when(stop.draining, give_up))
    try:
        await retry_until_answered(
            lambda: check_contract(database, dsn, schema, program, "reproq_worker"),
            log,
            give_up=give_up,
            errors=_TRANSIENT,
        )
        return await retry_until_answered(first, log, give_up=give_up, errors=_TRANSIENT)
    except _TRANSIENT as error:
        if stop.draining.is_set():
            return None
        raise UnreachableError(
            f"the database {describe(dsn)} did not answer within {START_LIMIT:g} s: {error}. "
            "Check --dsn (or DATABASE_URL) and that the server runs"
        ) from None
    except CallError as error:
        raise in_words(error, dsn) from None
    finally:
        timer.cancel()
        stopped.cancel()


async def check_contract(database: Database, dsn: str, schema: str | None, program: str, group: str) -> None:
    """Raises ContractError with the remedy unless the schema serves our contract. Raises CallError.

    Raises ReproqError if this role has no rights on reproq; `group`: the role that it should be a member of.
    """
    where = f" --schema {shlex.quote(schema)}" if schema else ""
    try:
        refusal = (await database.contract()).refusal()
        if refusal is not None:
            raise ContractError(refusal)
    except ContractError as error:
        raise contract_error(str(error), dsn, schema, program) from None
    except CallRefused as error:
        if error.sqlstate != NO_RIGHT:
            raise
        grants = f"{program} grants --dsn {shlex.quote(as_owner(dsn))}{where}"
        raise ReproqError(
            f"this role may not use reproq: {error}. Remedy, as the owner of the schema: {grants}, then in psql: "
            f"grant {group} to {await database.role()};"
        ) from None


def contract_error(reason: str, dsn: str, schema: str | None, program: str) -> ContractError:
    """The error for people when the schema does not serve our contract, with the remedy."""
    where = f" --schema {shlex.quote(schema)}" if schema else ""
    return ContractError(f"{reason}. Remedy: {program} migrate --dsn {shlex.quote(describe(dsn))}{where}")


def in_words(error: CallError, dsn: str) -> ReproqError:
    """The error for people of a call that did not succeed."""
    match error:
        case DatabaseAway():
            return UnreachableError(
                f"the database {describe(dsn)} does not answer: {error}. Check --dsn (or DATABASE_URL) and that "
                "the server runs; the last call may or may not have taken effect"
            )
        case DatabaseBusy():
            return ReproqError(
                f"nothing was changed; another session holds the rows or the server is slow: {error}. Try again"
            )
        case CallRefused() if error.sqlstate == NO_RIGHT:
            return ReproqError(
                f"this role may not do that: {error}. The owner of the schema can grant it: see grants --help"
            )
        case CallRefused() if error.sqlstate in _WRONG_ARGUMENT:
            return SettingError(str(error))
        case ValueRefused():
            return SettingError(f"the database cannot store that: {error}")
        case _:
            return ReproqError(f"the database refused: {error} ({error.sqlstate})")


async def _set_when(first: asyncio.Event, then: asyncio.Event) -> None:
    await wait_for_event(first, None)
    then.set()
