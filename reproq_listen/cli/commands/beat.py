"""`reproq-listen beat`: enqueues what schedules say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack

from reproq_listen import __version__
from reproq_listen.cli.output import Output
from reproq_listen.cli.session import enter, in_words
from reproq_listen.config import settings as config
from reproq_listen.config.definitions import BEAT_DSN, BEAT_INTERVAL, LISTEN_DSN
from reproq_listen.config.settings import Sources
from reproq_listen.db import dsn as dsns
from reproq_listen.db.connection import Connection
from reproq_listen.db.errors import CallError
from reproq_listen.db.listener import Listener
from reproq_listen.db.schedule_queries import Schedules
from reproq_listen.db.worker_queries import Database, prepare_session
from reproq_listen.errors import ExitCode
from reproq_listen.logs.event_log import Event
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.signals import Stop, on_signals
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.runtime.wake_flag import WakeFlag
from reproq_listen.scheduler.beat import Beat

USAGE = """
Enqueue what schedules say, at the database's time, until told to stop. Run as many as you like, none leads: an
occurrence happens once. It sleeps until the next one is due; a schedule that is written wakes it.

Usage:
  {program} beat [options]

Options:
  --interval DURATION  Look at least so often, in case a notification is lost (30s).
  --once               Look once, say what came of it, and end.
  --dsn DSN            The database (DATABASE_URL).
  --listen-dsn DSN     Where to LISTEN, when --dsn goes through a transaction pooler (as --dsn).
  --config PATH        Configuration file (REPROQ_CONFIG).
  --schema NAME        The schema that holds reproq's functions (the search path finds it).
  --output FORMAT      With --once: text, or json: one object with how many runs had which answer (text).
  -h --help            Show this.

Exit codes: 0 stopped by SIGTERM, SIGINT or SIGHUP, or looked once; else as {program} --help says.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Check the settings, then beat. Raises ReproqError."""
    sources = config.read_sources(flags, os.environ)
    output = Output(flags["--output"])
    return asyncio.run(_beat(sources, program, output))


async def _beat(sources: Sources, program: str, output: Output) -> ExitCode:
    dsn = config.required_dsn(sources, BEAT_DSN)
    listen_dsn = sources.find(LISTEN_DSN) or dsn
    listen = dsns.conninfo(listen_dsn, "--listen-dsn")
    schema = sources.find(config.SCHEMA)
    log = set_up(dsns.secrets(dsn) | dsns.secrets(listen_dsn)).bind(beat_id=config.default_worker_id())
    if warning := config.file_warning(sources):
        log.warning(Event.CONFIG_WARNING, message=warning)
    stop = Stop()
    async with AsyncExitStack() as stack:
        stack.enter_context(on_signals(stop))
        database = Database(Connection(dsns.conninfo(dsn), "beat", log, prepare_session), schema)
        stack.push_async_callback(database.close)
        schedules = Schedules(database)
        entered = await enter(database, lambda: schedules.next_beat(()), stop, dsn, schema, program, log)
        beat = Beat(schedules, sources.get(BEAT_INTERVAL), log)
        if sources.is_on("--once"):
            return await _once(beat, dsn, output)
        manager = ServiceManager.adopt(os.environ, log)
        log.info(Event.BEAT_STARTED, version=__version__, database=dsns.describe(dsn), next_in_seconds=entered)
        manager.ready("beating")
        listener = Listener(listen, (), WakeFlag(), lambda _: None, log, on_schedule=beat.notify, schema=schema)
        async with asyncio.TaskGroup() as group:
            services = [group.create_task(service) for service in (beat.run(), listener.run())]
            await stop.draining.wait()
            manager.stopping("stopping")
            for service in services:
                service.cancel()
        log.info(Event.BEAT_STOPPED)
    return ExitCode.OK


async def _once(beat: Beat, dsn: str, output: Output) -> ExitCode:
    try:
        answers = await beat.once()
    except CallError as error:
        raise in_words(error, dsn) from None
    output.said(answers, ", ".join(f"{number} {answer}" for answer, number in answers.items()) or "nothing is due")
    return ExitCode.OK
