"""`reproq-listen health`: the health check of a container."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from datetime import timedelta

import msgspec

from reproq_listen.cli.output import Output
from reproq_listen.config import definitions as table
from reproq_listen.config import parsers as values
from reproq_listen.config import settings as config
from reproq_listen.config.settings import Setting, Sources
from reproq_listen.db import dsn as dsns
from reproq_listen.db.catalog_queries import Examined, as_it_is
from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database
from reproq_listen.db.errors import CallError, CallRefused
from reproq_listen.db.session import check_contract, in_words
from reproq_listen.doctor.health import Health, by_heartbeat, by_page
from reproq_listen.errors import ExitCode, ReproqError
from reproq_listen.logs.json_lines import set_up

_BEATS = 3  # heartbeats that may be missed
_SLACK = timedelta(seconds=10)  # for a heartbeat that is repeated until it succeeds
_SHOWN = timedelta(minutes=5)  # reproq_live_workers shows no older ones
_WITHIN = Setting("--within", values.duration(timedelta(seconds=1), _SHOWN))

USAGE = """
Tell whether the worker of this host is alive; for the health check of a container or a load balancer. Give it the
settings of the worker (same flags, environment and configuration file).

With an HTTP address (METRICS_ADDR, or a port) it requests the worker's /livez, which does not need the database. If the
worker asks for client certificates (METRICS_TLS_CLIENT_CA), the TLS handshake is the sign of life: health needs no
certificate. Without an address it looks for the worker's heartbeat in the database, by WORKER_ID, else the latest
heartbeat from this host name. Then a database that does not answer makes the worker unhealthy, too.

Usage:
  {program} health [options]

Options:
  --metrics-addr ADDR           Where the worker serves HTTP (METRICS_ADDR).
  --metrics-port N              The port alone: on this host.
  --metrics-tls-cert PATH       As for worker: it speaks TLS (METRICS_TLS_CERT). Not read.
  --metrics-tls-key PATH        As for worker (METRICS_TLS_KEY). Not read.
  --metrics-tls-client-ca PATH  As for worker: it asks for client certificates (METRICS_TLS_CLIENT_CA). Not read.
  --dsn DSN                     The database (or DATABASE_URL).
  --schema NAME                 The schema that holds reproq's functions (the search path finds it).
  --worker-id NAME              The worker's name (WORKER_ID).
  --within DURATION             Greatest age of the last heartbeat, up to 5m (three heartbeats and ten seconds).
  --config PATH                 A configuration file, as for worker.
  --output FORMAT               text, or json: one object with healthy and said (text).
  -h --help                     Show this.

Exit codes: 0 healthy, 1 not healthy, 2 wrong flag or setting.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Ask the worker or the database, and print the answer. Raises SettingError."""
    sources = config.read_sources(flags, os.environ)
    output = Output(flags["--output"])
    settings = config.http_settings(sources)
    health = by_page(settings) if settings is not None else asyncio.run(_ask_database(sources, program))
    output.said(msgspec.to_builtins(health), health.said)
    return ExitCode.OK if health.healthy else ExitCode.FAILURE


async def _ask_database(sources: Sources, program: str) -> Health:
    dsn = config.required_dsn(sources, table.WORKER_DSN)
    log = set_up(dsns.secrets(dsn), level=logging.CRITICAL)
    schema = sources.find(table.SCHEMA)
    database = Database(Connection(dsns.conninfo(dsn), "health", log, as_it_is), schema)
    beat = min(sources.get(table.HEARTBEAT), sources.get(table.LEASE) / _BEATS)
    within = sources.find(_WITHIN) or min(_BEATS * beat + _SLACK, _SHOWN)
    try:
        return await by_heartbeat(Examined(database), sources.find(table.WORKER_ID), socket.gethostname(), within)
    except CallRefused as error:
        return Health(healthy=False, said=await _why(error, database, dsn, schema, program))
    finally:
        await database.close()


async def _why(refused: CallRefused, database: Database, dsn: str, schema: str | None, program: str) -> str:
    """Why the database refuses to answer, with the remedy."""
    try:
        await check_contract(database, dsn, schema, program, "reproq_worker")
    except (ReproqError, CallError) as error:
        return str(error)
    return str(in_words(refused, dsn))
