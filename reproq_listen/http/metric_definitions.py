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
        "attempts of this worker by result: success, failure, retry, snoozed, throttled, discarded, released, lost",
    ),
    Metric("reproq_tasks_claimed_total", "counter", ("queue",), "tasks claimed by this worker"),
    Metric(
        "reproq_tasks_completed_total",
        "counter",
        ("queue", "status"),
        "tasks that ended in this worker: success, failure",
    ),
    Metric(
        "reproq_claim_duration_seconds",
        "histogram",
        ("queue",),
        "duration of a claim, counted for each queue it returned tasks of, for '' when it returned none",
    ),
    Metric("reproq_exec_duration_seconds", "histogram", ("queue",), "time from the start of an attempt to its end"),
    Metric("reproq_queue_wait_duration_seconds", "histogram", ("queue",), "time from ready to claimed"),
    Metric(
        "reproq_db_operation_duration_seconds",
        "histogram",
        ("operation",),
        "duration of a database call, by function",
    ),
    Metric("reproq_queue_depth", "gauge", (), "READY and WAITING tasks of all queues"),
    Metric("reproq_tasks_running", "gauge", (), "RUNNING tasks, all workers"),
    Metric("reproq_workers", "gauge", (), "live workers: seen in the last five minutes", "workers"),
    Metric("reproq_concurrency_in_use", "gauge", (), "slots in use, all workers"),
    Metric("reproq_concurrency_limit", "gauge", (), "slots of all live workers", "capacity"),
    Metric("reproq_queues_paused", "gauge", (), "paused queues"),
    Metric("reproq_concurrency_blocked_tasks", "gauge", (), "due tasks blocked by a busy lock key or concurrency key"),
    Metric(
        "reproq_db_pool_connections_in_use",
        "gauge",
        (),
        "open database connections of this worker, without the listener's",
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
        "due tasks whose keys are free, including those of paused queues or without a rate limit token",
        "ready",
    ),
    Metric("reproq_queue_throttled", "gauge", ("queue",), "due tasks without a rate limit token", "throttled"),
    Metric("reproq_queue_scheduled", "gauge", ("queue",), "READY tasks that are due later", "scheduled"),
    Metric("reproq_queue_blocked", "gauge", ("queue",), "due tasks blocked by a busy key", "blocked"),
    Metric("reproq_queue_waiting", "gauge", ("queue",), "tasks that wait for other tasks to end", "waiting"),
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
        "RUNNING tasks with an expired lease, not yet reclaimed",
        "leases_expired",
    ),
    Metric("reproq_limit_tokens", "gauge", ("key",), "tokens in a rate limit bucket now", "limit_tokens"),
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
        "used part of the server's notification queue, 0 to 1",
        "notification_queue_usage",
    ),
    Metric("reproq_fleet_numbers_age_seconds", "gauge", (), "age of the numbers that are read from the database"),
    Metric("reproq_worker_tasks_running", "gauge", (), "attempts running in this worker"),
    Metric("reproq_worker_concurrency", "gauge", (), "slots of this worker"),
    Metric(
        "reproq_lease_expiries_total",
        "counter",
        ("how",),
        "leases that this worker lost: lost (refused by the database), fenced (not renewed in time)",
    ),
    Metric("reproq_tasks_reclaimed_total", "counter", ("answer",), "tasks this worker reclaimed: ready, failed"),
    Metric(
        "reproq_task_crashes_total",
        "counter",
        ("class",),
        "attempts that ended with their process: oom, signal, exit, start",
    ),
    Metric("reproq_executor_paused", "gauge", (), "1 while no process can be started for tasks, and none is claimed"),
    Metric("reproq_executor_pauses_total", "counter", (), "pauses because no process could be started for tasks"),
    Metric("reproq_notifications_total", "counter", ("channel",), "notifications received"),
    Metric("reproq_listener_verified", "gauge", (), "1 while notifications are verified to arrive"),
    Metric("reproq_listener_round_trip_seconds", "gauge", (), "time from sending the last canary to receiving it"),
    Metric("reproq_events_dropped_total", "counter", (), "events dropped because a client of /events read too slowly"),
    Metric(
        "reproq_http_refused_total", "counter", ("status",), "refused requests by status: 400, 401, 403, 405, 429, 505"
    ),
)
ALL = CONTRACT + OURS
