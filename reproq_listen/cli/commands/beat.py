"""`reproq-listen beat`: enqueues the runs of schedules."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from reproq_listen import __version__
from reproq_listen.cli.output import CommandOutput
from reproq_listen.config.definitions import BEAT_DSN
from reproq_listen.config.settings import BeatSettings, default_worker_id, read, read_sources, shared_warnings
from reproq_listen.db.connection import Connection
from reproq_listen.db.database import Database, prepare_session
from reproq_listen.db.dsn import conninfo, describe, secrets
from reproq_listen.db.errors import CallError
from reproq_listen.db.listener import Listener
from reproq_listen.db.schedule_queries import Schedules
from reproq_listen.db.session import enter, in_words
from reproq_listen.errors import ExitCode
from reproq_listen.logs.event_log import Event
from reproq_listen.logs.json_lines import set_up
from reproq_listen.runtime.signals import Stop, on_signals
from reproq_listen.runtime.systemd import ServiceManager
from reproq_listen.scheduler.beat import Beat

USAGE = """
Enqueues each run of a schedule once, by the database's clock. Run several for availability: none
leads, and no run is enqueued twice. A beat sleeps until the next run is due; a changed schedule
wakes it.

Usage:
  {program} beat [options]

Options:
{beat}

With --once --output json: one object with the number of runs for each answer.

Exit codes: 0 done (--once), or stopped by SIGTERM, SIGINT or SIGHUP; others as in
{program} --help.
"""


def run(flags: Mapping[str, object], program: str) -> ExitCode:
    """Check the settings, then beat. Raises ReproqError."""
    sources = read_sources(flags, os.environ, tolerant=program == "reproq")
    settings = read(BeatSettings, sources)
    warnings = shared_warnings(sources, BEAT_DSN)
    return asyncio.run(_beat(settings, warnings, program, CommandOutput(flags)))


async def _beat(settings: BeatSettings, warnings: Sequence[str], program: str, output: CommandOutput) -> ExitCode:
    dsn, schema = settings.dsn, settings.schema
    listen_dsn = settings.listen_dsn or dsn
    listen = conninfo(listen_dsn, "--listen-dsn")
    log = set_up(secrets(dsn) | secrets(listen_dsn)).bind(beat_id=default_worker_id())
    for warning in warnings:
        log.warning(Event.CONFIG_WARNING, message=warning)
    stop = Stop()
    async with AsyncExitStack() as stack:
        stack.enter_context(on_signals(stop))
        database = Database(Connection(conninfo(dsn), "beat", log, prepare_session), schema)
        stack.push_async_callback(database.close)
        schedules = Schedules(database)
        entered = await enter(database, lambda: schedules.next_beat(()), stop, dsn, schema, program, log)
        beat = Beat(schedules, settings.interval, log)
        if settings.once:
            return await _once(beat, dsn, output)
        manager = ServiceManager.adopt(os.environ, log)
        log.info(Event.BEAT_STARTED, version=__version__, database=describe(dsn), next_in_seconds=entered)
        manager.ready("beating")
        listener = Listener(
            listen, log, schema=schema, is_for_listen=settings.listen_dsn is not None, on_schedule=beat.notify
        )
        async with asyncio.TaskGroup() as group:
            services = [group.create_task(service) for service in (beat.run(), listener.run())]
            await stop.draining.wait()
            manager.stopping("stopping")
            for service in services:
                service.cancel()
        log.info(Event.BEAT_STOPPED)
    return ExitCode.OK


async def _once(beat: Beat, dsn: str, output: CommandOutput) -> ExitCode:
    try:
        answers = await beat.once()
    except CallError as error:
        raise in_words(error, dsn) from None
    output.result(answers, ", ".join(f"{number} {answer}" for answer, number in answers.items()) or "nothing is due")
    return ExitCode.OK
