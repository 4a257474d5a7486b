"""Every metric: name, kind, labels, meaning. The first block is the contract's."""

from __future__ import annotations

from msgspec import Struct


class Metric(Struct, frozen=True):
    """One metric family."""

    name: str
    kind: str
    """counter, gauge or histogram. A counter's name ends in `_total`."""
    labels: tuple[str, ...]
    about: str
    number: str = ""
    """For numbers of the whole fleet: the metric of `reproq_metrics()` that it shows."""


CONTRACT = (
    Metric(
        "reproq_tasks_processed_total",
        "counter",
        ("status", "queue"),
        "attempts of this worker: success, failure, retry, released, lost",
    ),
    Metric("reproq_tasks_claimed_total", "counter", ("queue",), "tasks this worker claimed"),
    Metric(
        "reproq_tasks_completed_total",
        "counter",
        ("queue", "status"),
        "tasks this worker brought to an end: success, failure",
    ),
    Metric(
        "reproq_claim_duration_seconds",
        "histogram",
        ("queue",),
        "time of a claim, under each queue it gave tasks of; '' when it gave none",
    ),
    Metric("reproq_exec_duration_seconds", "histogram", ("queue",), "time from the start of an attempt to its end"),
    Metric("reproq_queue_wait_duration_seconds", "histogram", ("queue",), "time from ready to claimed"),
    Metric(
        "reproq_db_operation_duration_seconds",
        "histogram",
        ("operation",),
        "time of a call to the database, by function",
    ),
    Metric("reproq_queue_depth", "gauge", (), "READY and WAITING tasks of all queues"),
    Metric("reproq_tasks_running", "gauge", (), "RUNNING tasks of the fleet"),
    Metric("reproq_workers", "gauge", (), "live workers: seen in the last five minutes", "workers"),
    Metric("reproq_concurrency_in_use", "gauge", (), "places taken in the fleet"),
    Metric("reproq_concurrency_limit", "gauge", (), "places of all live workers", "capacity"),
    Metric("reproq_queues_paused", "gauge", (), "paused queues"),
    Metric("reproq_concurrency_blocked_tasks", "gauge", (), "tasks blocked behind a lock key or a concurrency key"),
    Metric(
        "reproq_db_pool_connections_in_use",
        "gauge",
        (),
        "open database connections of this worker, the listener's not counted",
    ),
    Metric("reproq_db_pool_wait_count_total", "counter", (), "calls that waited for another call on their connection"),
    Metric("reproq_worker_cpu_usage_percent", "gauge", (), "CPU of this process since the last scrape, 100 = one core"),
    Metric("reproq_worker_mem_usage_bytes", "gauge", (), "resident memory of this process"),
)
OURS = (
    Metric(
        "reproq_queue_ready",
        "gauge",
        ("queue",),
        "due tasks whose key is not busy, those of a paused queue and those behind an empty bucket included",
        "ready",
    ),
    Metric("reproq_queue_throttled", "gauge", ("queue",), "those of them behind an empty bucket", "throttled"),
    Metric("reproq_queue_scheduled", "gauge", ("queue",), "READY tasks due later", "scheduled"),
    Metric("reproq_queue_blocked", "gauge", ("queue",), "due tasks whose key is busy", "blocked"),
    Metric("reproq_queue_waiting", "gauge", ("queue",), "tasks that wait for other tasks", "waiting"),
    Metric("reproq_queue_running", "gauge", ("queue",), "running tasks", "running"),
    Metric("reproq_queue_oldest_seconds", "gauge", ("queue",), "age of the oldest due task", "oldest_ready_seconds"),
    Metric("reproq_queue_paused", "gauge", ("queue",), "1 for a paused queue", "paused"),
    Metric(
        "reproq_tasks_held_back",
        "gauge",
        ("reason",),
        "tasks held back: paused, throttled, scheduled, lock_key, concurrency_key, predecessor",
        "held_back",
    ),
    Metric(
        "reproq_leases_expired",
        "gauge",
        (),
        "RUNNING tasks whose lease is over and not yet reclaimed",
        "leases_expired",
    ),
    Metric("reproq_limit_tokens", "gauge", ("key",), "tokens in a bucket now", "limit_tokens"),
    Metric(
        "reproq_beat_lateness_seconds",
        "gauge",
        (),
        "how long the earliest enabled schedule is overdue",
        "beat_lateness_seconds",
    ),
    Metric(
        "reproq_oldest_transaction_seconds",
        "gauge",
        (),
        "age of the oldest transaction of this database that the role may see",
        "oldest_transaction_seconds",
    ),
    Metric(
        "reproq_notification_queue_usage",
        "gauge",
        (),
        "part of the server's notification queue in use, 0 to 1",
        "notification_queue_usage",
    ),
    Metric("reproq_fleet_numbers_age_seconds", "gauge", (), "how old the numbers read from the database are"),
    Metric("reproq_worker_tasks_running", "gauge", (), "attempts running in this worker"),
    Metric("reproq_worker_concurrency", "gauge", (), "places of this worker"),
    Metric(
        "reproq_lease_expiries_total",
        "counter",
        ("how",),
        "leases of this worker that ended: lost (the database said so), fenced (stopped in time)",
    ),
    Metric("reproq_tasks_reclaimed_total", "counter", ("answer",), "tasks this worker reclaimed: ready, failed"),
    Metric("reproq_task_crashes_total", "counter", ("class",), "attempts whose process died: oom, signal, exit, start"),
    Metric("reproq_notifications_total", "counter", ("channel",), "notifications heard"),
    Metric("reproq_listener_verified", "gauge", (), "1 while notifications are verified to arrive"),
    Metric(
        "reproq_listener_round_trip_seconds", "gauge", (), "time of the last canary from its sending to its hearing"
    ),
    Metric("reproq_events_dropped_total", "counter", (), "events that slow readers of /events missed"),
    Metric("reproq_http_refused_total", "counter", ("status",), "requests refused: 400, 401, 403, 405, 429, 505"),
)
ALL = CONTRACT + OURS
