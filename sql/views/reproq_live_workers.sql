create or replace view reproq_live_workers with (security_barrier) as
select w.worker_id,
       w.hostname,
       w.concurrency,
       w.queues,
       w.version,
       w.started_at,
       w.last_seen_at,
       reproq_now() - w.last_seen_at as silent,
       (select count(*) from task_runs t where t.leased_until is not null and t.leased_by = w.worker_id) as running
from reproq_workers w
where w.last_seen_at > reproq_now() - interval '5 minutes';

revoke all on reproq_live_workers from public;
comment on view reproq_live_workers is
    'Workers seen in the last five minutes; silent: time since the last sign; running: leases they hold.';
