"""The start of a service on its database: wait for it a while, check the contract."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from typing import TypeVar

from reproq_listen import dsn as dsns
from reproq_listen.connection import CallError, insist, wait_for_event
from reproq_listen.db import CONTRACT, Database
from reproq_listen.errors import ContractError, UnreachableError
from reproq_listen.logs import Log
from reproq_listen.stop import Stop

T = TypeVar("T")

START_LIMIT = 10.0
"""Seconds to wait for a database that does not answer yet."""


async def enter(
    database: Database,
    first: Callable[[], Awaitable[T]],
    stop: Stop,
    dsn: str,
    schema: str | None,
    program: str,
    log: Log,
) -> T | None:
    """Check the contract, then give what the first call gives. None if told to stop meanwhile. Raises ReproqError."""
    patience = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(START_LIMIT, patience.set)
    told = asyncio.create_task(_set_when(stop.draining, patience))
    try:
        await insist(lambda: check_contract(database, dsn, schema, program), log, give_up=patience)
        return await insist(first, log, give_up=patience)
    except CallError as error:
        if stop.draining.is_set():
            return None
        raise UnreachableError(
            f"the database {dsns.describe(dsn)} did not answer within {START_LIMIT:g} s: {error}. "
            "Check --dsn (or DATABASE_URL) and that the server runs"
        ) from None
    finally:
        timer.cancel()
        told.cancel()


async def check_contract(database: Database, dsn: str, schema: str | None, program: str) -> None:
    """Raises ContractError, which says how to cure it, unless the schema serves our contract. Raises CallError."""
    try:
        served = await database.contract()
        if served != CONTRACT:
            raise ContractError(f"the schema serves contract {served}, this program speaks {CONTRACT}")
    except ContractError as error:
        where = f" --schema {shlex.quote(schema)}" if schema else ""
        cure = f"{program} migrate --dsn {shlex.quote(dsns.describe(dsn))}{where}"
        raise ContractError(f"{error}. Cure: {cure}") from None


async def _set_when(first: asyncio.Event, then: asyncio.Event) -> None:
    await wait_for_event(first, None)
    then.set()
