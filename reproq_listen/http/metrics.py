"""The metrics page: this worker's metrics from its log, and the fleet's from the database.

The registry is our own. A scrape never waits for a slow database: it gets the last numbers, and
`reproq_fleet_numbers_age_seconds` tells how old they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric as Family

from reproq_listen.http import fleet
from reproq_listen.http import metric_definitions as definitions
from reproq_listen.logs.event_log import Event
from reproq_listen.protocol.memory import resident_bytes

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MAX_QUEUES = 200  # label values; further queues are counted as `other`
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_LONG = (0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 300, 900, 3600)
_BUCKETS = {
    "reproq_claim_duration_seconds": _SHORT,
    "reproq_db_operation_duration_seconds": _SHORT,
    "reproq_exec_duration_seconds": _LONG,
    "reproq_queue_wait_duration_seconds": _LONG,
}
Fields = Mapping[str, object]


class _WithoutCreated:
    """The registry without the `_created` series that the library adds to each counter and histogram."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Family]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class HasCalls(Protocol):
    """The part of a database connection that metrics show."""

    waits: int

    @property
    def is_open(self) -> bool: ...


class Metrics:
    """Taps the log and counts its events."""

    def __init__(self, concurrency: int, connections: Sequence[HasCalls], numbers: fleet.Fleet) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(numbers)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for metric in definitions.ALL:
            if not metric.number and metric.name not in fleet.OWN:
                self._make(metric)
        self._gauges["reproq_worker_concurrency"].set(concurrency)
        self._connections = connections
        self._queues: set[str] = set()
        self._running: set[object] = set()
        self._shown: dict[str, float] = {}
        self._cpu = (time.monotonic(), _cpu_seconds())
        self._handlers = self._make_handlers()

    def _make(self, metric: definitions.Metric) -> None:
        match metric.kind:
            case "counter":
                counter = Counter(metric.name, metric.about, metric.labels, registry=self._registry)
                self._counters[metric.name] = counter
            case "histogram":
                self._histograms[metric.name] = Histogram(
                    metric.name, metric.about, metric.labels, registry=self._registry, buckets=_BUCKETS[metric.name]
                )
            case _:
                self._gauges[metric.name] = Gauge(metric.name, metric.about, metric.labels, registry=self._registry)

    def _make_handlers(self) -> Mapping[Event, Callable[[Fields], None]]:
        failures = (
            *(Event.TASK_FAILED, Event.TASK_REJECTED, Event.TASK_INVALID, Event.TASK_CANCELLED),
            Event.TASK_INFRA_ERROR,
        )
        return {
            **dict.fromkeys(failures, self._failed),
            Event.TASKS_CLAIMED: self._claimed,
            Event.TASK_STARTED: self._started,
            Event.TASK_ENDED: self._ended,
            Event.TASK_SUCCESS: lambda fields: self._count_attempt(fields, "success"),
            Event.TASK_RETRY: lambda fields: self._count_attempt(fields, "retry"),
            Event.TASK_RELEASED: lambda fields: self._count_attempt(fields, "released"),
            Event.TASK_SNOOZED: lambda fields: self._count_attempt(fields, "snoozed"),
            Event.TASK_THROTTLED: lambda fields: self._count_attempt(fields, "throttled"),
            Event.LEASE_LOST: self._lost,
            Event.LEASE_NOT_RENEWED: lambda _: self.count("reproq_lease_expiries_total", "fenced"),
            Event.TASKS_RECLAIMED: self._reclaimed,
            Event.DATABASE_CALLED: self._called,
            Event.NOTIFIED: lambda fields: self.count("reproq_notifications_total", str(fields["channel"])),
            Event.LISTEN_ROUND_TRIP: self._round_trip_measured,
            Event.EXECUTOR_PAUSED: self._executor_paused,
            Event.EXECUTOR_RESUMED: lambda _: self._gauges["reproq_executor_paused"].set(0),
            Event.LISTENER_DOWN: lambda _: self._gauges["reproq_listener_verified"].set(0),
            Event.LISTEN_FAILED: lambda _: self._gauges["reproq_listener_verified"].set(0),
        }

    def tap(self, event: Event, level: int, fields: Fields) -> None:
        handler = self._handlers.get(event)
        if handler is not None:
            handler(fields)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Count something that is no event of the log."""
        counter = self._counters[name]
        (counter.labels(*labels) if labels else counter).inc(by)

    def page(self, events_dropped: int) -> bytes:
        """The metrics as text."""
        now, used = time.monotonic(), _cpu_seconds()
        then, used_then = self._cpu
        self._cpu = (now, used)
        self._gauges["reproq_worker_cpu_usage_percent"].set(100 * (used - used_then) / max(now - then, 1e-3))
        self._gauges["reproq_worker_mem_usage_bytes"].set(resident_bytes())
        self._gauges["reproq_db_pool_connections_in_use"].set(sum(c.is_open for c in self._connections))
        self._count_up_to("reproq_db_pool_wait_count_total", sum(c.waits for c in self._connections))
        self._count_up_to("reproq_events_dropped_total", events_dropped)
        return generate_latest(_WithoutCreated(self._registry))

    def _count_up_to(self, name: str, total: float) -> None:
        self.count(name, by=total - self._shown.get(name, 0))
        self._shown[name] = total

    def _queue(self, fields: Fields) -> str:
        """The label of an event's queue. The number of labels is bounded: producers choose queue names."""
        queue = str(fields.get("queue", ""))
        if queue not in self._queues:
            if len(self._queues) >= _MAX_QUEUES:
                return "other"
            self._queues.add(queue)
        return queue

    def _claimed(self, fields: Fields) -> None:
        counts = fields["counts"]
        assert isinstance(counts, Mapping)
        for queue, number in (counts or {"": 0}).items():
            label = self._queue({"queue": queue})
            self._histograms["reproq_claim_duration_seconds"].labels(label).observe(_number(fields["seconds"]))
            if number:
                self.count("reproq_tasks_claimed_total", label, by=number)

    def _started(self, fields: Fields) -> None:
        histogram = self._histograms["reproq_queue_wait_duration_seconds"]
        histogram.labels(self._queue(fields)).observe(_number(fields["waited"]))
        self._running.add((fields["task_id"], fields["lease"]))
        self._gauges["reproq_worker_tasks_running"].set(len(self._running))

    def _ended(self, fields: Fields) -> None:
        attempt = (fields["task_id"], fields["lease"])
        if attempt in self._running:  # a task that a pool gives back may never have been started
            histogram = self._histograms["reproq_exec_duration_seconds"]
            histogram.labels(self._queue(fields)).observe(_number(fields["seconds"]))
        self._running.discard(attempt)
        self._gauges["reproq_worker_tasks_running"].set(len(self._running))
        if fields["kind"] == "crashed":
            self.count("reproq_task_crashes_total", str(fields["crash_class"] or "start"))

    def _failed(self, fields: Fields) -> None:
        self._count_attempt(fields, "discarded" if fields.get("kind") == "discarded" else "failure")

    def _count_attempt(self, fields: Fields, status: str) -> None:
        queue = self._queue(fields)
        self.count("reproq_tasks_processed_total", status, queue)
        if status in ("success", "failure", "discarded"):
            self.count("reproq_tasks_completed_total", queue, "success" if status == "success" else "failure")

    def _lost(self, fields: Fields) -> None:
        if "queue" in fields:  # the result of an attempt could not be stored
            self._count_attempt(fields, "lost")
        else:
            self.count("reproq_lease_expiries_total", "lost")

    def _reclaimed(self, fields: Fields) -> None:
        for answer in ("ready", "failed"):
            self.count("reproq_tasks_reclaimed_total", answer, by=_number(fields.get(answer, 0)))

    def _executor_paused(self, _: Fields) -> None:
        self._gauges["reproq_executor_paused"].set(1)
        self.count("reproq_executor_pauses_total")

    def _called(self, fields: Fields) -> None:
        histogram = self._histograms["reproq_db_operation_duration_seconds"]
        histogram.labels(str(fields["operation"])).observe(_number(fields["seconds"]))

    def _round_trip_measured(self, fields: Fields) -> None:
        self._gauges["reproq_listener_verified"].set(1)
        self._gauges["reproq_listener_round_trip_seconds"].set(_number(fields["seconds"]))


def _number(value: object) -> float:
    """The number in a field of an event; the seconds of a duration."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    assert isinstance(value, int | float)
    return float(value)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system
