"""The frame of operators' commands: read the common flags, connect, check the contract, put refusals into words."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from reproq_listen.cli.output import Output
from reproq_listen.cli.session import check_contract, in_words
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.config.settings import Setting, Sources
from reproq_listen.db import dsn as dsns
from reproq_listen.db.connection import Connection
from reproq_listen.db.errors import CallError, DatabaseBusy
from reproq_listen.db.operator_queries import Operator
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.worker_queries import Database, prepare_session
from reproq_listen.errors import ExitCode, SettingError
from reproq_listen.logs.event_log import Log
from reproq_listen.logs.json_lines import set_up

T = TypeVar("T")
Work = Callable[[Operator, Output], Awaitable[ExitCode]]

_CALL_LIMIT = 60.0  # seconds; a batch of an operator may take longer than a worker's call
_PATIENCE = 10.0  # seconds to try again while somebody holds the rows

MAX_ID = 2**63 - 1
RESULT_ID = values.whole_number(1, MAX_ID)
REASON = Setting("--reason", values.name(1000))


def run(flags: Mapping[str, object], program: str, work: Work, *, group: str = "reproq_operator") -> ExitCode:
    """Do an operator's work on the database that --dsn or DATABASE_URL names. Raises ReproqError.

    `group`: the one whose members may do this work.
    """
    sources = config.read_sources(flags, os.environ)
    return asyncio.run(_run(sources, program, work, Output(flags["--output"]), group))


def given(sources: Sources, flag: str, parse: Callable[[str], T]) -> T | None:
    """The value of a flag, None when it was not given. Raises SettingError that names it."""
    return sources.find(Setting(flag, parse))


def required(sources: Sources, flag: str, parse: Callable[[str], T]) -> T:
    """The value of a flag that the usage demands."""
    value = given(sources, flag, parse)
    if value is None:
        raise SettingError(f"{flag} is missing")
    return value


async def retry_while_busy(call: Callable[[], Awaitable[T]], log: Log | None = None) -> T:
    """Repeat a call that had no effect because somebody holds the rows, for ten seconds. Raises CallError."""
    enough = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(_PATIENCE, enough.set)
    try:
        return await retry_until_answered(
            call, log or set_up(level=logging.CRITICAL), give_up=enough, errors=(DatabaseBusy,)
        )
    finally:
        timer.cancel()


async def _run(sources: Sources, program: str, work: Work, output: Output, group: str) -> ExitCode:
    dsn = config.required_dsn(sources)
    schema = sources.find(config.SCHEMA)
    log = set_up(dsns.secrets(dsn), level=logging.CRITICAL)
    database = Database(Connection(dsns.conninfo(dsn), "operate", log, prepare_session, _CALL_LIMIT), schema)
    try:
        await check_contract(database, dsn, schema, program, group)
        return await work(Operator(database, sources.find(REASON)), output)
    except CallError as error:
        raise in_words(error, dsn) from None
    finally:
        await database.close()
