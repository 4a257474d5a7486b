"""Numbers of the whole fleet, read from the database at most every 15 s and served until newer ones arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reproq_listen.db.database import Database
from reproq_listen.db.errors import CallError, DatabaseAway
from reproq_listen.db.metrics_queries import Number, fleet_numbers
from reproq_listen.http import metric_definitions as definitions
from reproq_listen.logs.event_log import Event, Log

_MIN_AGE = 15.0  # seconds: younger numbers are not read again
_REST_FACTOR = 100  # pause between two counts, as a multiple of the time of one: at most 1 % of one core of the server
_WAIT = 0.25  # seconds that a scrape waits for new numbers
_SUM_OF = {
    "reproq_queue_depth": ("ready", "scheduled", "blocked", "waiting"),
    "reproq_tasks_running": ("running",),
    "reproq_concurrency_in_use": ("running",),
    "reproq_queues_paused": ("paused",),
    "reproq_concurrency_blocked_tasks": ("blocked",),
}
"""The contract's totals: sums over all labels of these."""


@dataclass(frozen=True)
class _Counted:
    numbers: Sequence[Number]
    at: float  # loop time
    took: float  # seconds


class Fleet(Collector):
    """Owns the numbers and the one call that renews them."""

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log
        self._counted: _Counted | None = None
        self._counting: asyncio.Task[None] | None = None
        self._failed_at = float("-inf")

    async def renew(self) -> None:
        """Start a new count if the numbers are old, and wait a moment for it. Never raises, never waits long."""
        now = asyncio.get_running_loop().time()
        if self._counting is None or self._counting.done():
            rest = max(_MIN_AGE, _REST_FACTOR * self._counted.took) if self._counted else 0.0
            last = max(self._counted.at if self._counted else float("-inf"), self._failed_at)
            if now - last < rest:
                return
            self._counting = asyncio.create_task(self._count())
        await asyncio.wait({self._counting}, timeout=_WAIT)

    async def _count(self) -> None:
        began = asyncio.get_running_loop().time()
        try:
            numbers = await fleet_numbers(self._database)
        except CallError as error:  # reproq_fleet_numbers_age_seconds shows it
            self._failed_at = asyncio.get_running_loop().time()
            if not isinstance(error, DatabaseAway):  # the connection has logged that
                self._log.warning(
                    Event.DATABASE_REFUSED,
                    reason=str(error),
                    sqlstate=error.sqlstate,
                    remedy="metrics of the fleet need EXECUTE on reproq_metrics(): reproq-listen grants",
                )
            return
        ended = asyncio.get_running_loop().time()
        self._counted = _Counted(sorted(numbers, key=attrgetter("metric")), ended, ended - began)

    async def close(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait({self._counting})

    def collect(self) -> Iterable[Metric]:
        """The metrics for Prometheus. Before the first numbers: their age alone."""
        if self._counted is None:
            yield GaugeMetricFamily(_AGE.name, _AGE.about, value=float("inf"))
            return
        age = asyncio.get_running_loop().time() - self._counted.at
        yield GaugeMetricFamily(_AGE.name, _AGE.about, value=age)
        values = {metric: list(numbers) for metric, numbers in groupby(self._counted.numbers, key=attrgetter("metric"))}
        for metric in definitions.ALL:
            if metric.number:
                yield _family(metric, values.get(metric.number, []))
            elif parts := _SUM_OF.get(metric.name):
                total = sum(number.value for part in parts for number in values.get(part, []))
                yield GaugeMetricFamily(metric.name, metric.about, value=total)


def _family(metric: definitions.Metric, numbers: Sequence[Number]) -> Metric:
    family = GaugeMetricFamily(metric.name, metric.about, labels=metric.labels)
    for number in numbers:
        family.add_metric([number.label] if metric.labels else [], number.value)
    return family


_AGE = next(metric for metric in definitions.ALL if metric.name == "reproq_fleet_numbers_age_seconds")
OWN = frozenset({_AGE.name, *_SUM_OF})
"""Metrics that are collected here although they show no number of `reproq_metrics()` of their own."""
