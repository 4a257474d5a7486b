"""What operators' commands share: read the flags, connect, check the contract, turn refusals into words."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from reproq_listen.cli.output import CommandOutput
from reproq_listen.config import parsers
from reproq_listen.config.settings import OperatorSettings, read, read_sources
from reproq_listen.config.sources import Setting, Sources
from reproq_listen.db.errors import CallError, DatabaseBusy
from reproq_listen.db.operator_queries import Operator
from reproq_listen.db.retry import retry_until_answered
from reproq_listen.db.session import check_contract, in_words, open_database
from reproq_listen.errors import ExitCode, SettingError
from reproq_listen.logs.json_lines import set_up

T = TypeVar("T")
Work = Callable[[Operator, CommandOutput], Awaitable[ExitCode]]

_CALL_LIMIT = 60.0  # seconds; a batch of an operator may take longer than a worker's call
_BUSY_LIMIT = 10.0  # seconds to try again while another session holds the rows

MAX_ID = 2**63 - 1
RESULT_ID = parsers.whole_number(1, MAX_ID)


def run_operator(flags: Mapping[str, object], program: str, work: Work, *, group: str = "reproq_operator") -> ExitCode:
    """Do an operator's work on the database that the settings name. Raises ReproqError.

    `group`: the role whose members may do this work.
    """
    settings = read(OperatorSettings, read_sources(flags, os.environ, tolerant=program == "reproq"))
    return asyncio.run(_run(settings, program, work, CommandOutput(flags), group))


def given(sources: Sources, flag: str, parse: Callable[[str], T]) -> T | None:
    """The value of a flag, None when it was not given. Raises SettingError that names it.

    An empty text is a wrong value: `triage retry --all --queue "$QUEUE"` must not mean all queues.
    """
    return sources.find(Setting(flag=flag, parse=parse, empty_counts=True))


def required(sources: Sources, flag: str, parse: Callable[[str], T]) -> T:
    """The value of a flag that the usage requires."""
    value = given(sources, flag, parse)
    if value is None:
        raise SettingError(f"{flag} is missing: give it")
    return value


async def retry_while_busy(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call that had no effect because another session holds the rows, for ten seconds. Raises CallError."""
    give_up = asyncio.Event()
    timer = asyncio.get_running_loop().call_later(_BUSY_LIMIT, give_up.set)
    try:
        return await retry_until_answered(call, set_up(level=logging.CRITICAL), give_up=give_up, errors=(DatabaseBusy,))
    finally:
        timer.cancel()


async def _run(settings: OperatorSettings, program: str, work: Work, output: CommandOutput, group: str) -> ExitCode:
    async with open_database(settings.dsn, settings.schema, "operate", limit=_CALL_LIMIT) as database:
        try:
            await check_contract(database, settings.dsn, settings.schema, program, group)
            return await work(Operator(database, settings.reason), output)
        except CallError as error:
            raise in_words(error, settings.dsn) from None
