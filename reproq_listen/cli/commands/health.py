"""`reproq-listen health`: the health check of a container."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.definitions import MAX_HEARTBEAT_AGE
from reproq_listen.config.settings import HealthSettings, http_settings, read, read_sources
from reproq_listen.db.catalog_queries import Examined, as_it_is
from reproq_listen.db.database import Database
from reproq_listen.db.errors import CallError, CallRefused
from reproq_listen.db.session import check_contract, in_words, open_database
from reproq_listen.doctor.health import Health, by_heartbeat, by_page
from reproq_listen.errors import ExitCode, ReproqError

_BEATS = 3  # heartbeats that may be missed
_SLACK = timedelta(seconds=10)  # for a beat that is repeated until it succeeds

USAGE = """
For the health check of a container or a load balancer. Give it the settings of the worker: the same
flags, environment and configuration file.

With an HTTP address or port it asks the worker's page /livez, which needs no database. If the
worker requires client certificates (METRICS_TLS_CLIENT_CA), the worker's half of the TLS handshake
counts as the answer: health has no certificate and needs none. It does not read the files of the
TLS settings.

Without an HTTP address it looks for the worker's heartbeat in the database: that of WORKER_ID, else
the latest of this host name. Then a database that does not answer means not healthy, too.

Usage:
  {program} health [options]

Options:
{health}

With --output json: one object with healthy and detail.

Exit codes: 0 healthy, 1 not healthy, 2 wrong flag or setting.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Ask, and print what was found. Raises SettingError."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    output = CommandOutput(flags)
    settings = http_settings(sources)
    if settings is not None:
        health = by_page(settings)
    else:
        health = asyncio.run(_ask_database(read(HealthSettings, sources), program))
    output.result(msgspec.to_builtins(health), health.detail)
    return ExitCode.OK if health.healthy else ExitCode.FAILURE


async def _ask_database(settings: HealthSettings, program: str) -> Health:
    beat = min(settings.heartbeat, settings.lease / _BEATS)
    within = settings.within or min(_BEATS * beat + _SLACK, MAX_HEARTBEAT_AGE)
    async with open_database(settings.dsn, settings.schema, "health", as_it_is) as database:
        try:
            return await by_heartbeat(Examined(database), settings.worker_id, socket.gethostname(), within)
        except CallRefused as error:
            return Health(healthy=False, detail=await _why(error, database, settings, program))


async def _why(refused: CallRefused, database: Database, settings: HealthSettings, program: str) -> str:
    """Why the database refuses to answer, with the remedy."""
    try:
        await check_contract(database, settings.dsn, settings.schema, program, "reproq_worker")
    except (ReproqError, CallError) as error:
        return str(error)
    return str(in_words(refused, settings.dsn))
